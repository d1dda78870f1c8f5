"""The engine beside vLLM, where that is installed: one model's files, the same requests, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu.engine_runs import Request, drive, make_engine, mixed_requests, rows_of
from benchmarks.gpu.hardware import device_of, free_memory, seconds_of, served_dtype
from benchmarks.gpu.models import random_model, saved_model
from benchmarks.gpu.paths import paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.shapes import shape_named
from benchmarks.peers import Vllm

TURNS = 2
MEMORY_SHARE = 0.4
"""vLLM's, of the whole GPU: the other engine is beside it."""


def run(task: Task, report: Report) -> None:
    if not task.vllm:
        report.note(skipped="vLLM is not installed; --vllm PYTHON names an interpreter that has it")
        return
    device, shape = device_of(task), shape_named("1B", task.short)
    dtype, context = served_dtype(device), 128 if task.short else 2048
    folder = saved_model(shape, device, dtype, context, task.folder / "model")
    free_memory(device)
    slots = 8 if task.short else 256
    options: dict[str, Any] = {"gpu_memory_utilization": MEMORY_SHARE} if device.type == "cuda" else {}
    vllm = Vllm(
        task.vllm, folder, dtype=str(dtype).removeprefix("torch."), max_model_len=context, max_num_seqs=slots, **options
    )
    try:
        for count in (4,) if task.short else (32, 256):
            requests = _requests(count, shape.vocabulary, task.short)
            runs = {"vllm": lambda requests=requests: vllm.run(requests)} | _ours(task, requests, slots, context)
            report.attempt(f"{count} rows", lambda runs=runs: _in_turns(runs, device))
    finally:
        vllm.close()


def _requests(count: int, vocabulary: int, short: bool) -> list[Request]:
    lengths, tokens = ((4, 20), (4, 4)) if short else ((100, 1000), (128, 128))
    return mixed_requests(count, vocabulary, lengths, tokens)


def _ours(task: Task, requests: Sequence[Request], slots: int, context: int) -> dict[str, Callable[[], int]]:
    """Each path's engine, on a model of its own: paths may join its weights in ways of their own."""
    device, shape = device_of(task), shape_named("1B", task.short)
    dtype = served_dtype(device)
    runs: dict[str, Callable[[], int]] = {}
    for path in paths(device, dtype):
        model = random_model(shape, device, dtype, context)
        engine = make_engine(model, min(slots, len(requests)), context, prefixes=False, **path.options)
        runs[path.name] = lambda engine=engine: drive(engine, rows_of(requests)).count
    return runs


def _in_turns(runs: dict[str, Callable[[], int]], device: torch.device) -> dict[str, Any]:
    """Tokens a second of each, the best of its turns, behind one to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + 1):
        for name, act in runs.items():
            counted: list[int] = []
            seconds = seconds_of(device, lambda act=act, counted=counted: counted.append(act()))
            if turn:
                rates[name].append(counted[0] / seconds)
    best = {name: max(each) for name, each in rates.items()}
    return {"tokens_per_second": best, "times_vllm": {name: rate / best["vllm"] for name, rate in best.items()}}
