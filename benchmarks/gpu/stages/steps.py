"""One shape's decode steps: how long they take beside what they must, for few and many rows, on each path in turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.hardware import device_of, seconds_of, served_dtype
from benchmarks.gpu.models import random_model
from benchmarks.gpu.paths import paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.profile_lines import host_share
from benchmarks.gpu.profiles import profiled
from benchmarks.gpu.report import Report, one_line
from benchmarks.gpu.rows import filled_cache, lengths_of, running_rows, step_chunks
from benchmarks.gpu.shapes import Shape, estimate_seconds, floor_seconds, shape_named
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState

ROWS, SHORT_ROWS = (1, 8, 32, 128, 256), (1, 8, 32)
LONGEST, SHORT_LONGEST = 1000, 40
# Steps of one turn; a row's length grows by one at each.
STEPS, SHORT_STEPS = 12, 2
TURNS, SHORT_TURNS = 3, 1
WARM_UPS = 3


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named(task.stage.shape, task.short)
    dtype, longest = served_dtype(device), SHORT_LONGEST if task.short else LONGEST
    context = longest + (SHORT_STEPS if task.short else STEPS) * 4
    counts = SHORT_ROWS if task.short else ROWS
    model = random_model(shape, device, dtype, context)
    cache = filled_cache(model, max(counts), context)
    report.note(shape=shape.name, short=shape.is_short, dtype=str(dtype), kv_bytes=cache.bytes)
    runners: dict[str, Runner] = {}
    for path in paths(device, dtype):
        try:
            runners[path.name] = path.runner(model, cache)
        except Exception as error:
            report.append("steps", {"path": path.name, "error": one_line(error)})
    for count in counts:
        for kind in ("equal", "mixed"):
            rows = running_rows(lengths_of(kind, count, longest), shape.vocabulary)
            for name, found in _in_turns(runners, rows, device, task.short).items():
                known = _known(shape, rows, dtype, task.bandwidth, found)
                report.append("steps", {"path": name, "rows": count, "lengths": kind} | found | known)


def _in_turns(
    runners: dict[str, Runner], rows: Sequence[SequenceState], device: torch.device, short: bool
) -> dict[str, dict[str, Any]]:
    """Steps of each runner, by turns, so that a change of the machine's pace meets all of them."""
    steps, turns = (SHORT_STEPS, SHORT_TURNS) if short else (STEPS, TURNS)
    plain: dict[str, list[float]] = {name: [] for name in runners}
    ahead: dict[str, list[float]] = {name: [] for name in runners}
    errors: dict[str, str] = {}
    for _ in range(turns):
        for name, runner in runners.items():
            try:
                plain[name] += _one_by_one(runner, rows, steps, device)
                ahead[name] += _overlapping(runner, rows, steps, device)
            except Exception as error:
                errors[name] = one_line(error)
    return {
        name: {"error": errors[name]} if name in errors else _summary(runner, rows, plain[name], ahead[name], device)
        for name, runner in runners.items()
    }


def _one_by_one(runner: Runner, rows: Sequence[SequenceState], steps: int, device: torch.device) -> list[float]:
    """Seconds of each step, its tokens read before the next one begins."""
    for ahead in range(WARM_UPS):
        runner.run(step_chunks(rows, ahead))
    return [seconds_of(device, lambda ahead=ahead: runner.run(step_chunks(rows, ahead))) for ahead in range(steps)]


def _overlapping(runner: Any, rows: Sequence[SequenceState], steps: int, device: torch.device) -> list[float]:
    """Seconds a step, each submitted before the one in front of it is read; nothing, if the runner cannot."""
    if not hasattr(runner, "submit"):
        return []

    def act() -> None:
        pending = runner.submit(step_chunks(rows))
        for ahead in range(1, steps):
            following = runner.submit(step_chunks(rows, ahead), pending)
            pending.collect()
            pending = following
        pending.collect()

    return [seconds_of(device, act) / steps]


def _summary(
    runner: Runner, rows: Sequence[SequenceState], plain: list[float], ahead: list[float], device: torch.device
) -> dict[str, Any]:
    seconds = statistics.median(plain)
    best = min([seconds, *ahead])
    found = profiled(device, lambda: runner.run(step_chunks(rows)))
    return {
        "seconds": seconds,
        "overlapped_seconds": statistics.median(ahead) if ahead else None,
        "spread": [min(plain), max(plain)],
        "tokens_per_second": len(rows) / best,
        "launches": found.launches,
        "kernels": found.kernels,
        "device_seconds": found.device_seconds,
        "host_share": host_share(found, seconds, on_cuda=device.type == "cuda"),
    }


def _known(
    shape: Shape, rows: Sequence[SequenceState], dtype: torch.dtype, bandwidth: float | None, found: dict[str, Any]
) -> dict[str, Any]:
    """What arithmetic says of the same step; nothing, where the bandwidth is not known or the step failed."""
    if bandwidth is None or "error" in found:
        return {}
    lengths = [row.computed for row in rows]
    floor = floor_seconds(shape, lengths, dtype.itemsize, bandwidth)
    estimate = estimate_seconds(shape, lengths, dtype.itemsize, bandwidth)
    best = len(rows) / found["tokens_per_second"]
    return {
        "floor_seconds": floor,
        "estimate_seconds": estimate,
        "share_of_floor": floor / best,
        "times_estimate": best / estimate,
    }
