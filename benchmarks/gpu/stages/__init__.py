"""One module a stage, each with `run(task, report)`; it runs in a process of its own."""
