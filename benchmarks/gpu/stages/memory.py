"""What happens when memory runs out, a token is none, or the device fails: refused, recovered from, or said in a line.

Each part is by itself; the one that breaks the device is last, as nothing works after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.gpu.engine_runs import Run, drive, make_engine, mixed_requests, row, rows_of, runner_of
from benchmarks.gpu.hardware import device_of, free_memory, served_dtype
from benchmarks.gpu.models import random_model
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.errors import EngineBroken, EngineError

# What is left to steps beside what is taken already, tried one after the other until a step with prompts finds too
# little: how much it needs depends on the path.
ROOMS = tuple(size * 2**20 for size in (1024, 512, 256, 128, 64, 32))


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named("1B", task.short)
    model = random_model(shape, device, served_dtype(device), 128 if task.short else 4096)
    report.attempt("refusal", lambda: _refusal(model))
    report.attempt("wrong_token", lambda: _wrong_token(model, task.short))
    report.attempt("out_of_memory", lambda: _out_of_memory(model, task.short))
    free_memory(device)
    if device.type == "cuda":
        report.attempt("broken_device", lambda: _broken_device(model))


def _refusal(model: PreTrainedModel) -> dict[str, Any]:
    """More slots than fit are refused in one line that says how many do."""
    try:
        make_engine(model, 10**6, model.config.max_position_embeddings)
    except EngineError as error:
        return {"message": error.message, "holds": "slots fit" in error.message}
    return {"error": "a million slots were not refused"}


def _wrong_token(model: PreTrainedModel, short: bool) -> dict[str, Any]:
    """A token beyond the vocabulary fails its own row."""
    engine = make_engine(model, 4, model.config.max_position_embeddings)
    good = _rows(model, 3, short)
    run = drive(engine, [*good, row("wrong", [1, model.vocab_size], 4)])
    end = run.ends["wrong"]
    unharmed = all(run.ends[each.id].error is None for each in good)
    return {"errors": run.errors, "holds": unharmed and end.error is not None and end.error[0] == "invalid_request"}


def _out_of_memory(model: PreTrainedModel, short: bool) -> dict[str, Any]:
    """Rows in memory that does not suffice for a whole step, and the same rows with enough again."""
    count, context = (3 if short else 32), model.config.max_position_embeddings
    rows = _rows(model, count, short)
    engine = make_engine(model, count, context, prefixes=False)
    wanted, scarce, retried = drive(engine, rows), Run(), list[int]()
    for room in ROOMS:
        with _scarce(engine, model.device, room, retried):
            scarce = drive(engine, rows)
        if retried:
            break
    after = drive(engine, rows)
    return {
        "runner": runner_of(engine),
        "room_bytes": room,
        "scarce": _ends(scarce, wanted) | {"failed_steps": len(retried)},
        "after": _ends(after, wanted),
        "holds": bool(retried) and not scarce.errors and not after.errors and len(after.ends) == count,
    }


def _ends(run: Run, wanted: Run) -> dict[str, Any]:
    same = sum(run.tokens.get(name) == tokens for name, tokens in wanted.tokens.items())
    return {"rows": len(run.ends), "errors": run.errors, "same_texts": same, "seconds": run.seconds}


@contextmanager
def _scarce(engine: ContinuousEngine, device: torch.device, room: int, retried: list[int]) -> Iterator[None]:
    """On CUDA torch's allocator is held to what it has and this much; on a CPU, which has no such limit, steps of more
    than one row raise what it would.
    """
    runner: Any = engine._runner
    run = runner.run

    def watched(chunks: Sequence[Any]) -> Any:
        try:
            if device.type == "cpu" and len(chunks) > 1:
                raise torch.OutOfMemoryError("out of memory, as if it were a GPU's")
            return run(chunks)
        except torch.OutOfMemoryError:
            retried.append(len(chunks))
            raise

    runner.run = watched
    _limit(device, _taken(device) + room)
    try:
        yield
    finally:
        runner.run = run
        _limit(device, None)


def _taken(device: torch.device) -> int:
    free_memory(device)
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0


def _limit(device: torch.device, most: int | None) -> None:
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction(1.0 if most is None else most / total, device)


def _rows(model: PreTrainedModel, count: int, short: bool) -> list[Row]:
    lengths, tokens = ((4, 60), (2, 4)) if short else ((500, 2000), (8, 16))
    return rows_of(mixed_requests(count, model.vocab_size, lengths, tokens))


def _broken_device(model: PreTrainedModel) -> dict[str, Any]:
    """After a kernel has failed, the engine says that it is broken, and not that its rows are."""
    engine = make_engine(model, 2, model.config.max_position_embeddings)
    engine.add([row("one", [1, 2, 3], 100)])
    engine.step(0.0)
    table = torch.zeros(4, device=model.device)
    table[torch.full((4,), 10**6, device=model.device)] = 1.0  # asserts, on the device
    try:
        for _ in range(100):
            engine.step(0.0)
    except EngineBroken as error:
        return {"message": error.message, "holds": True}
    except Exception as error:
        return {"error": f"{type(error).__name__} in place of EngineBroken: {error}"[:300], "holds": False}
    return {"error": "no step failed", "holds": False}
