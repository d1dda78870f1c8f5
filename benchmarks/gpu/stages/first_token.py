"""How soon 64 prompts that come at once have their first tokens beside running rows, and what those wait meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.gpu.engine_runs import Run, make_engine, mixed_requests, row, runner_of, step
from benchmarks.gpu.hardware import device_of, free_memory, served_dtype
from benchmarks.gpu.models import random_model
from benchmarks.gpu.paths import Path, paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from gpu_worker.engines.base import Engine

RUNNING, PROMPTS = 32, 64
SHORT_RUNNING, SHORT_PROMPTS = 3, 5


def run(task: Task, report: Report) -> None:
    device = device_of(task)
    dtype = served_dtype(device)
    for name in ("135M",) if task.short else ("135M", "8B"):
        shape = shape_named(name, task.short)
        model = random_model(shape, device, dtype, 64 if task.short else 2048)
        for path in paths(device, dtype):
            report.attempt(f"{name} {path.name}", lambda path=path, model=model: _measure(path, model, task.short))
        del model
        free_memory(device)


def _measure(path: Path, model: Any, short: bool) -> dict[str, Any]:
    running, prompts = (SHORT_RUNNING, SHORT_PROMPTS) if short else (RUNNING, PROMPTS)
    context = model.config.max_position_embeddings
    engine = make_engine(model, running + prompts, context, **path.options)
    lengths = (4, 20) if short else (100, 1000)
    _arrive(engine, model.vocab_size, running, prompts, lengths, "warm")
    found = _arrive(engine, model.vocab_size, running, prompts, lengths, "measured")
    return found | {"runner": runner_of(engine)}


def _arrive(
    engine: Engine, vocabulary: int, running: int, prompts: int, lengths: tuple[int, int], name: str
) -> dict[str, Any]:
    """Rows that run, then prompts at once; ends when each of these has a token."""
    run, began, times = Run(), time.perf_counter(), []
    rows = [row(f"{name}-{i}", [(7 * i + j) % vocabulary for j in range(9)], 10_000) for i in range(running)]
    engine.add(rows)
    while len(run.tokens) < running:
        step(engine, run, began)
    requests = mixed_requests(prompts, vocabulary, lengths, (2, 2))
    arrived = time.perf_counter() - began
    engine.add([row(f"{name}-new-{i}", request.ids, request.tokens) for i, request in enumerate(requests)])
    while len(run.tokens) < running + prompts:
        step(engine, run, began)
        times.append(time.perf_counter() - began)
    first = sorted(run.times[f"{name}-new-{i}"][0] - arrived for i in range(prompts))
    engine.cancel([each.id for each in rows])
    while engine.live_rows():
        step(engine, run, began)
    return _summary(first, [arrived, *times], sum(len(request.ids) for request in requests))


def _summary(first: Sequence[float], steps: Sequence[float], tokens: int) -> dict[str, Any]:
    gaps = [after - before for before, after in pairwise(steps)]
    return {
        "first_token_seconds": {
            "median": statistics.median(first),
            "p95": first[int(0.95 * (len(first) - 1))],
            "last": first[-1],
        },
        "longest_step_seconds": max(gaps),
        "prompt_tokens": tokens,
        "prompt_tokens_per_second": tokens / first[-1],
    }
