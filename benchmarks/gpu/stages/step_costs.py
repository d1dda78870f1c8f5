"""What `scheduler.step_cost` should say of this device: each number measured, beside the one that stands there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from benchmarks.gpu.costs import beside_tokens, double_tokens, free_tokens, prefill_tokens
from benchmarks.gpu.hardware import device_of, free_memory, median_seconds, served_dtype
from benchmarks.gpu.models import random_model
from benchmarks.gpu.paths import Path, paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.rows import filled_cache, prompt_chunk, random_ids, running_rows, step_chunks
from benchmarks.gpu.shapes import FULL, SHORT, Shape

TOKENS, SHORT_TOKENS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256), (1, 2, 4, 8)
PROMPTS, SHORT_PROMPTS = (16, 64, 128, 256, 512, 1024, 2048, 4096), (8, 16, 32)
BESIDE_ROWS, SHORT_BESIDE_ROWS = 32, 4
# Short rows, so that reading their keys counts for nothing beside the weights.
LENGTH = 16


def run(task: Task, report: Report) -> None:
    device = device_of(task)
    dtype = served_dtype(device)
    for shape in SHORT if task.short else FULL:
        context = max(SHORT_PROMPTS if task.short else PROMPTS) + LENGTH
        model = random_model(shape, device, dtype, context)
        for path in paths(device, dtype):
            name = f"{shape.name} {path.name}"
            report.attempt(name, lambda path=path, model=model, shape=shape: _measured(path, model, shape, task.short))
        del model
        free_memory(device)


def _measured(path: Path, model: PreTrainedModel, shape: Shape, short: bool) -> dict[str, Any]:
    context, device, repeats = model.config.max_position_embeddings, model.device, 2 if short else 5
    many = SHORT_TOKENS if short else TOKENS
    small = filled_cache(model, max(many) + 1, 4 * LENGTH)
    runner = path.runner(model, small)
    rows = running_rows([LENGTH] * max(many), shape.vocabulary)
    running = {n: median_seconds(device, lambda n=n: runner.run(step_chunks(rows[:n])), repeats) for n in many}
    beside, few = SHORT_BESIDE_ROWS if short else BESIDE_ROWS, filled_cache(model, 4, context)
    runner_of_few = path.runner(model, few)
    sizes = SHORT_PROMPTS if short else PROMPTS
    alone = {n: median_seconds(device, _prompt(runner_of_few, n, shape, 0), repeats, 1) for n in sizes}
    # The rows lie in slots [0, beside) of the other memory, the prompt behind them, as long as a slot there.
    both = {n: median_seconds(device, _beside(runner, n, shape, rows[:beside]), repeats, 1) for n in _within(sizes)}
    return _costs(running, alone, both, running[beside]) | {"stands": asdict(runner.step_cost)}


def _within(sizes: tuple[int, ...]) -> list[int]:
    return [size for size in sizes if size < 4 * LENGTH]


def _prompt(runner: Any, size: int, shape: Shape, slot: int) -> Any:
    chunk = prompt_chunk(slot, random_ids(size, shape.vocabulary, size))
    return lambda: runner.run([chunk])


def _beside(runner: Any, size: int, shape: Shape, rows: Any) -> Any:
    chunks = [*step_chunks(rows), prompt_chunk(len(rows), random_ids(size, shape.vocabulary, size))]
    return lambda: runner.run(chunks)


def _costs(
    running: Mapping[int, float], prompts: Mapping[int, float], beside: Mapping[int, float], alone: float
) -> dict[str, Any]:
    free = free_tokens(running)
    return {
        "running_seconds": dict(running),
        "prompt_seconds": dict(prompts),
        "beside_seconds": dict(beside),
        "free_tokens": free,
        "double_tokens": double_tokens(running, free),
        "prefill_tokens": prefill_tokens(prompts),
        "beside": beside_tokens(beside, alone),
    }
