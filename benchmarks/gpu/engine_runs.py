"""An engine on a random model, driven as the worker drives it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from benchmarks.gpu.models import byte_tokenizer
from gpu_worker.engines.base import Engine, Row, RowEnd
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.request import GenerateRequest


def make_engine(model: PreTrainedModel, slots: int, context: int, **options: Any) -> ContinuousEngine:
    """One for so many rows."""
    return ContinuousEngine(model, byte_tokenizer(), slots=slots, context=context, **options)


def runner_of(engine: Engine) -> str:
    """What computes its steps: an engine whose wanted runner differs from `generate` takes another one."""
    return engine.info.details["runner"]


def row(name: str, ids: Sequence[int], tokens: int, **parameters: Any) -> Row:
    """A row for the engine, by its token ids."""
    return Row(name, GenerateRequest(prompt_token_ids=list(ids), max_tokens=tokens, **parameters))


@dataclass(slots=True)
class Run:
    """What came out of an engine, by row.

    Attributes:
        tokens: ids, as they came.
        times: when each step gave a row something, in seconds from its beginning.
        ends: how each row ended.
        seconds: how long it took.
    """

    tokens: dict[str, list[int]] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    ends: dict[str, RowEnd] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.tokens.values()))

    @property
    def errors(self) -> list[str]:
        """What the rows that failed say of it, each once."""
        return sorted({f"{end.error[0]}: {end.error[1]}"[:300] for end in self.ends.values() if end.error})


def drive(engine: Engine, rows: Sequence[Row], run: Run | None = None) -> Run:
    """Run all rows to their ends, those first that have none yet, as slots become free."""
    run, waiting, began = run or Run(), list(rows), time.perf_counter()
    while waiting or engine.live_rows():
        free = min(engine.free_slots(), len(waiting))
        engine.add(waiting[:free])
        del waiting[:free]
        step(engine, run, began)
    run.seconds = time.perf_counter() - began
    return run


def step(engine: Engine, run: Run, began: float) -> None:
    """One step, and what it did."""
    for event in engine.step(time.monotonic()).events:
        if event.token_ids:
            run.tokens.setdefault(event.id, []).extend(event.token_ids)
            run.times.setdefault(event.id, []).append(time.perf_counter() - began)
        if event.end:
            run.ends[event.id] = event.end


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and how many tokens it is to get."""

    ids: list[int]
    tokens: int


def mixed_requests(count: int, vocabulary: int, prompts: tuple[int, int], tokens: tuple[int, int]) -> list[Request]:
    """Requests of lengths between these, each end included."""
    rng = random.Random(count)
    return [
        Request([rng.randrange(vocabulary) for _ in range(rng.randint(*prompts))], rng.randint(*tokens))
        for _ in range(count)
    ]


def rows_of(requests: Sequence[Request]) -> list[Row]:
    """As the engine takes them."""
    return [row(str(index), request.ids, request.tokens) for index, request in enumerate(requests)]
