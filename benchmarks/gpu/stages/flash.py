"""Flash attention over keys and values as they lie in memory, held against arithmetic in float32.

Rows start anywhere, in any order, and are of any length; heads share keys or do not. What lies between the rows is
poison: if any of it is read, the result shows it. The memory that the result is written to is poisoned too, so that
what is not written shows.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.hardware import device_of, median_seconds
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report

ATTENTION = "gpu_worker.engines.continuous.runners.graph.attention"
# Of the whole difference, in relation to the whole result; 16 bits of the operands give 1e-3 to 1e-2.
MOST_DIFFERENCE = {torch.bfloat16: 1e-2, torch.float16: 3e-3, torch.float32: 1e-5}
# Finite, so that it is seen in the result and nothing else goes wrong.
POISON = 1e4


@dataclass(frozen=True, slots=True)
class Case:
    """Heads, their size, rows, how many of their newest tokens ask, and the longest row."""

    heads: int
    key_heads: int
    size: int
    rows: int
    queries: int
    longest: int


CASES = (
    Case(9, 3, 64, 1, 1, 1024), Case(9, 3, 64, 32, 1, 1024), Case(32, 8, 64, 128, 1, 1024),
    Case(32, 8, 128, 32, 1, 4096), Case(32, 8, 128, 256, 1, 1024), Case(8, 8, 64, 17, 1, 300),
    Case(9, 3, 64, 6, 40, 500), Case(32, 8, 128, 4, 300, 2000), Case(16, 2, 96, 33, 3, 700),
)  # fmt: skip
SHORT_CASES = (Case(6, 2, 16, 5, 1, 40), Case(4, 4, 16, 3, 1, 20), Case(6, 2, 16, 3, 4, 30))


def run(task: Task, report: Report) -> None:
    """Fails if some case differs by more than rounding."""
    device = device_of(task)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    kind, attend = attention(device)
    report.note(kind=kind, dtype=str(dtype))
    for seed, case in enumerate(SHORT_CASES if task.short else CASES):
        found = _compare(case, attend, device, dtype, seed, 2 if task.short else 20)
        report.append("cases", {"case": str(case)} | found)
    worst = max(case["difference"] for case in report.facts["cases"])
    report.note(worst=worst, most=MOST_DIFFERENCE[dtype])
    # Written so that NaN fails.
    if not worst <= MOST_DIFFERENCE[dtype]:
        raise ArithmeticError(f"attention differs from the reference by {worst:.2g} of its size")


Attend = Callable[[Tensor, Tensor, Tensor, "Spans"], Tensor]


@dataclass(frozen=True, slots=True)
class Spans:
    """Where rows begin, how many keys each has, and how many queries, in cells of the first head."""

    starts: list[int]
    lengths: list[int]
    queries: int


def attention(device: torch.device) -> tuple[str, Attend]:
    """The one of the engine, if it has one, else torch's operator as it is; on a CPU a plain one in its place."""
    try:
        engine: Any = importlib.import_module(ATTENTION)
    except ModuleNotFoundError:
        return ("operator", _operator) if device.type == "cuda" else ("plain", _plain)
    act = engine.flash_attention if device.type == "cuda" else engine.plain_attention
    return act.__name__, lambda query, keys, values, spans: act(query, keys, values, _rows(engine, spans, query.device))


def _rows(engine: Any, spans: Spans, device: torch.device) -> Any:
    """In the engine's own terms."""
    return engine.QueryRows(*_numbers(spans, device), spans.queries, max(spans.lengths))


def _numbers(spans: Spans, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    firsts = [row * spans.queries for row in range(len(spans.starts) + 1)]
    lists = (firsts, [*spans.starts, 0], spans.lengths)
    first_queries, starts, lengths = (torch.tensor(each, dtype=torch.int32, device=device) for each in lists)
    return first_queries, starts, lengths


def _operator(query: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
    first_queries, starts, lengths = _numbers(spans, query.device)
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query, keys, values, first_queries, starts, spans.queries, max(spans.lengths), 0.0, True, False,
        scale=query.shape[-1] ** -0.5, seqused_k=lengths,
    )[0]  # fmt: skip
    return out


def _plain(query: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
    """Row by row, by torch's attention in the number format of the arguments."""
    parts = []
    for row, (start, length) in enumerate(zip(spans.starts, spans.lengths, strict=True)):
        asked = query[row * spans.queries : (row + 1) * spans.queries]
        q, k, v = (each.transpose(0, 1)[None] for each in (asked, *(s[start : start + length] for s in (keys, values))))
        columns = torch.arange(length, device=query.device)
        seen = columns <= columns[length - spans.queries :, None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def reference(query: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
    """In float32, from the definition: softmax of the scores of what each query may see, times the values."""
    shared, outs = query.shape[1] // keys.shape[1], []
    for row, (start, length) in enumerate(zip(spans.starts, spans.lengths, strict=True)):
        own = slice(start, start + length)
        key, value = (states[own].float().repeat_interleave(shared, dim=1) for states in (keys, values))
        for index in range(spans.queries):
            seen = length - spans.queries + index + 1
            asked = query[row * spans.queries + index].float()
            scores = torch.einsum("hd,thd->ht", asked, key[:seen]) * query.shape[-1] ** -0.5
            outs.append(torch.einsum("ht,thd->hd", scores.softmax(-1), value[:seen]))
    return torch.stack(outs)


def _compare(
    case: Case, attend: Attend, device: torch.device, dtype: torch.dtype, seed: int, repeats: int
) -> dict[str, Any]:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    lengths = [rng.randint(case.queries, case.longest) for _ in range(case.rows)]
    lengths[0], lengths[-1] = case.queries, case.longest
    spans = Spans(_starts(lengths, rng), lengths, case.queries)
    cells = sum(lengths) + 2 * case.rows
    query = torch.randn(case.rows * case.queries, case.heads, case.size, device=device, dtype=dtype)
    keys, values = (_poisoned(cells, case, spans, device, dtype) for _ in range(2))
    wanted = reference(query, keys, values, spans)
    # The allocator gives the memory that was let go last to the next tensor of that size.
    poisoned = torch.full_like(query, torch.nan)
    del poisoned
    got = attend(query, keys, values, spans).float()
    return {
        "difference": float((got - wanted).norm() / wanted.norm()),
        "largest": float((got - wanted).abs().max()),
        "seconds": median_seconds(device, lambda: attend(query, keys, values, spans), repeats),
        "read_bytes": 2 * sum(lengths) * case.key_heads * case.size * dtype.itemsize,
    }


def _starts(lengths: Sequence[int], rng: random.Random) -> list[int]:
    """Somewhere each, in an order that says nothing, with a poisoned cell or two between."""
    starts, at = [0] * len(lengths), 0
    for row in rng.sample(range(len(lengths)), len(lengths)):
        at += rng.randint(1, 2)
        starts[row] = at
        at += lengths[row]
    return starts


def _poisoned(cells: int, case: Case, spans: Spans, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[cells, key heads, size] as it lies in memory, one head's cells behind another's, numbers only in the rows."""
    states = torch.full((case.key_heads, cells, case.size), POISON, device=device, dtype=dtype)
    for start, length in zip(spans.starts, spans.lengths, strict=True):
        states[:, start : start + length].normal_()
    return states.transpose(0, 1)
