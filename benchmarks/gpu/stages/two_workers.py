"""Two workers on one GPU: started at the same moment, with a share of the memory each and without."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.hardware import device_of, free_memory, served_dtype
from benchmarks.gpu.models import saved_model
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from benchmarks.gpu.worker_process import MEMORY_SHARE, WorkerProcess, has_memory_share, worker_settings

SHARE = 0.45


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named("1B", task.short)
    context, rows = (128, 2) if task.short else (8192, 32)
    folder = saved_model(shape, device, served_dtype(device), context, task.folder / "model")
    free_memory(device)
    common = worker_settings(folder, task.device, task.folder / "data", slots=4 if task.short else "auto")
    report.attempt("without_share", lambda: _pair(common, rows, task, "without"))
    if has_memory_share():
        report.attempt("with_share", lambda: _pair(common | {MEMORY_SHARE: SHARE}, rows, task, "with"))
    else:
        report.note(with_share={"skipped": f"this engine has no setting {MEMORY_SHARE}"})


def _pair(settings: dict[str, Any], rows: int, task: Task, name: str) -> list[dict[str, Any]]:
    """How each start went, and of those that work how they do beside one another."""
    workers = [WorkerProcess(settings, task.folder / f"{name}-{index}.log") for index in range(2)]
    try:
        found = [worker.answer() for worker in workers]
        up = [(worker, start) for worker, start in zip(workers, found, strict=True) if "slots" in start]
        for worker, _ in up:
            worker.run(rows)
        for worker, start in up:
            start["generated"] = worker.answer()
    finally:
        for worker in workers:
            worker.close()
    return found
