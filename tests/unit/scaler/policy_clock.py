"""A clock made by hand, by which the policy decides."""

from __future__ import annotations

from dataclasses import replace

from scaler.forecast import Service
from scaler.load import Limits, Load
from scaler.policy import History, decide
from scaler.reasons import Reason

LIMITS = Limits(min_workers=1, max_workers=40, slots=10, target_wait_seconds=1, zero_delay_seconds=300)
SERVICE, START = 5.0, 20.0


class Clock:
    """Decides once a second; what was decided is there by the next second unless the test says otherwise."""

    def __init__(self, limits: Limits = LIMITS, workers: int = 1, history: History | None = None) -> None:
        self.limits, self.workers, self.now = limits, workers, 1000.0
        self.history = history or History(service=Service.of(SERVICE))
        self.ended = 0

    def tick(self, running: int, arrived: int = 0, queued: int = 0, **fields: float) -> tuple[int, Reason]:
        """One second in which so many jobs came. Whatever is neither queued nor running has ended."""
        before = self.history.look[1]
        self.ended = max(self.ended, before + arrived - running - queued)
        load = Load(queued, running, fields.pop("oldest", 0.0), self.workers, ended=self.ended, start_seconds=START)
        decision = decide(replace(load, **fields), self.history, self.limits, self.now)
        self.history, self.workers, self.now = decision.history, decision.workers, self.now + 1
        self.outlook = decision.outlook
        return decision.workers, decision.reason

    def ticks(self, count: int, running: int, arrived: int = 0, **fields: float) -> list[tuple[int, Reason]]:
        return [self.tick(running, arrived, **fields) for _ in range(count)]


def busy(rate: int, workers: int, seconds: int = 100, limits: Limits = LIMITS) -> Clock:
    """A clock that has watched so many jobs a second for so long, each in service for five seconds."""
    clock = Clock(limits, workers)
    for _ in range(seconds):
        clock.workers = workers
        clock.tick(round(rate * SERVICE), rate)
    clock.workers = workers
    return clock
