"""The engine beside what transformers has: `generate` on padded batches, and `generate_batch`, its continuous one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from benchmarks.gpu.engine_runs import Request, drive, make_engine, mixed_requests, rows_of, runner_of
from benchmarks.gpu.hardware import device_of, free_memory, seconds_of, served_dtype
from benchmarks.gpu.models import random_model
from benchmarks.gpu.paths import paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from benchmarks.peers import GenerateBatch, StaticBatches

CONTEXT, SHORT_CONTEXT = 1024, 64


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named("135M", task.short)
    dtype = served_dtype(device)
    model = random_model(shape, device, dtype, SHORT_CONTEXT if task.short else CONTEXT)
    requests = _requests(shape.vocabulary, task.short)
    report.note(shape=shape.name, requests=len(requests), tokens=sum(request.tokens for request in requests))
    for path in paths(device, dtype):
        report.attempt(path.name, lambda path=path: _ours(model, requests, path.options))
        free_memory(device)
    size = 4 if task.short else 32
    report.attempt(f"generate-{size}", lambda: _theirs(StaticBatches(model, size), model, requests))
    batch = GenerateBatch(model, len(requests), model.config.max_position_embeddings)
    report.attempt("generate_batch", lambda: _theirs(batch, model, requests))


def _requests(vocabulary: int, short: bool) -> list[Request]:
    return (
        mixed_requests(6, vocabulary, (3, 12), (2, 6)) if short else mixed_requests(96, vocabulary, (8, 400), (8, 128))
    )


def _ours(model: PreTrainedModel, requests: Sequence[Request], options: Any) -> dict[str, Any]:
    engine = make_engine(model, len(requests), model.config.max_position_embeddings, prefixes=False, **options)
    drive(engine, rows_of(requests))
    run = drive(engine, rows_of(requests))
    return {
        "seconds": run.seconds,
        "tokens_per_second": run.count / run.seconds,
        "errors": run.errors,
        "runner": runner_of(engine),
    }


def _theirs(peer: Any, model: PreTrainedModel, requests: Sequence[Request]) -> dict[str, Any]:
    peer.run(requests[: len(requests) // 2])
    counted: list[int] = []
    seconds = seconds_of(model.device, lambda: counted.append(peer.run(requests)))
    return {"seconds": seconds, "tokens_per_second": counted[0] / seconds}
