"""Drives an engine for the tests of the laws that every engine keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from gpu_worker.engines.base import Engine, Row, RowEnd, StepStats


class Run:
    """Drives an engine and keeps what it said. One step a second, so that echo says one word a step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 0.0
        self.texts: defaultdict[str, str] = defaultdict(str)
        self.token_ids: defaultdict[str, list[int]] = defaultdict(list)
        self.ends: dict[str, RowEnd] = {}
        self.stats: list[StepStats] = []

    def step(self) -> None:
        result = self.engine.step(self.now)
        self.now += 1.0
        self.stats.append(result.stats)
        for event in result.events:
            assert event.id not in self.ends, "nothing comes after a row's end"
            self.texts[event.id] += event.text
            self.token_ids[event.id] += event.token_ids
            if event.end:
                self.ends[event.id] = event.end

    def all(self, rows: Iterable[Row]) -> Run:
        self.engine.add(list(rows))
        while self.engine.live_rows():
            self.step()
        return self
