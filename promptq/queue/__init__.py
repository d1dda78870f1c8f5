"""The queue in Redis: every change of a job is one Lua script."""
