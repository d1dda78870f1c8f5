"""How long a worker takes from its process's start to its first tokens, by part: cold, and with its checks kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.hardware import device_of, served_dtype
from benchmarks.gpu.models import saved_model
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from benchmarks.gpu.worker_process import WorkerProcess, worker_settings


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named("1B", task.short)
    context, rows = (128, 2) if task.short else (4096, 32)
    folder = saved_model(shape, device, served_dtype(device), context, task.folder / "model")
    settings = worker_settings(folder, task.device, task.folder / "data", slots=4 if task.short else "auto")
    for name in ("first",) if task.short else ("first", "again"):
        report.attempt(name, lambda name=name: _started(settings, rows, task.folder / f"{name}.log"))


def _started(settings: dict[str, Any], rows: int, log: Path) -> dict[str, Any]:
    """The start, then one row, so many for the first time, and the same once more."""
    worker = WorkerProcess(settings, log)
    try:
        found = worker.answer()
        for name, count in (("one_row", 1), ("many_rows", rows), ("many_rows_again", rows)):
            if "slots" in found:
                worker.run(count)
                found[name] = worker.answer()
    finally:
        worker.close()
    return found
