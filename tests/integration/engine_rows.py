"""Rows for a tiny engine, run to their end."""

from __future__ import annotations

from gpu_worker.engines.base import Engine, Row, RowEnd
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.request import GenerateRequest
from tests.integration.tiny_engines import Recorder


def intercept(engine, check) -> None:
    """Let `check` see, and refuse, the chunks of each pass over the model."""
    for name in ("run", "submit"):
        if act := getattr(engine._runner, name, None):
            setattr(engine._runner, name, _checked(act, check))


def _checked(act, check):
    def checked(chunks, *after):
        check(chunks)
        return act(chunks, *after)

    return checked


def row(id: str, prompt: str = "hello", deadline: float | None = None, **fields) -> Row:
    return Row(id, GenerateRequest(prompt=prompt, **({"max_tokens": 12} | fields)), deadline=deadline)


def run(engine, rows: list[Row], now: float = 0.0) -> Recorder:
    recorder = Recorder()
    engine.add(rows)
    while engine.live_rows():
        recorder.take(engine.step(now))
    return recorder


def ends(engine: Engine, rows: list[Row]) -> dict[str, RowEnd]:
    """The ends of these rows, as many together as there are slots."""
    found: dict[str, RowEnd] = {}
    waiting = list(rows)
    while waiting or engine.live_rows():
        free = engine.free_slots()
        engine.add(waiting[:free])
        del waiting[:free]
        found |= {event.id: event.end for event in engine.step(0.0).events if event.end}
    return found


def to_its_end(engine: ContinuousEngine, row: Row) -> tuple[list[int], RowEnd]:
    """All tokens of a row that runs alone, and its end."""
    engine.add([row])
    tokens: list[int] = []
    end = None
    while end is None:
        for event in engine.step(0.0).events:
            tokens += event.token_ids
            end = event.end or end
    return tokens, end
