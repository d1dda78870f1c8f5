"""The planner of `sim_foresight` as a policy in the simulation, which sees no more than ours does.

In the simulation the queue is in order of arrival, so that those who are late are in front of those who are not: a job
that waits too long already is planned to begin at once, and costs its price each second until it has.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sim_model import LENGTHS, SERVICE_SECONDS, SLOTS, Sight, simulate
from sim_plan import Guess, Plan, Prices, Step, expected
from sim_traces import Trace

PRICE = 1.0
"""Of a late job, worker-seconds for each second until it begins."""
GUESSES = (Guess(10), Guess(60), Guess(60, 1.2), Guess(600, 2.0))
SHARES = (1.0, 0.7, 0.4, 0.0)
"""The wait that is planned for, as a share of the one that is allowed: rows, lengths and arrivals are random here."""


class Planned(NamedTuple):
    """A run: p95 wait in seconds, and worker-hours."""

    p95: float
    hours: float


class Planner:
    """A policy: the first step of the plan, every few seconds.

    Args:
        wait, start: seconds, to plan for.
        seconds: length of a step, and between decisions.
        known: expected arrivals of each second of the run, of which those of the next `ahead` seconds are seen.
    """

    def __init__(
        self, wait: float, start: float, largest: int, guess: Guess, seconds: int, known: Any = (), ahead: float = 0.0
    ) -> None:
        self._waits, self._seconds = int(wait / seconds), seconds
        self._known, self._ahead = np.cumsum(known), int(ahead / seconds)
        starts = max(1, round(start / seconds))
        self._plan = Plan(max(8, self._waits + self._ahead + 2 * starts), seconds, starts, Prices(0.0, PRICE), largest)
        self._guess = Guess(guess.past / seconds, guess.margin)
        self._arrived: list[float] = []
        self._coming: Any = np.zeros(starts)
        self._rows: Any = np.zeros(len(LENGTHS))
        self._begun = 0.0

    def __call__(self, sight: Sight) -> int:
        if round(sight.now) % self._seconds:
            return sight.workers
        self._arrived.append(float(sight.jobs + sight.ended))
        now, steps = len(self._arrived) - 1, self._plan.steps
        begun = self._arrived[-1] - sight.queued
        self._follow(sight, begun)
        arrived = np.array([*self._arrived, *self._coming_jobs(sight.now)])
        seen = expected(arrived, now, len(arrived) - 1, self._waits, steps + 1, self._guess) - begun
        due, there = seen[1 : steps + 1], seen[self._waits + 1 :]
        before = Step(workers=sight.workers - sight.starting, short=self._rows[0], long=self._rows[1])
        step = self._plan.first(np.maximum(due, 0), np.maximum(there, 0), before, self._coming)
        return self._wanted(sight, step)

    def _coming_jobs(self, now: float) -> Any:
        """The running total of the arrivals after each of the steps that are known."""
        if not self._ahead:
            return ()
        at = np.minimum(int(now) + self._seconds * np.arange(self._ahead + 1), len(self._known) - 1)
        return self._arrived[-1] + self._known[at[1:]] - self._known[at[0]]

    def _follow(self, sight: Sight, begun: float) -> None:
        """What is seen of the rows is their number; how many are long follows from when they began."""
        new, self._begun = max(0.0, begun - self._begun), max(begun, self._begun)
        for which, (share, mean) in enumerate(LENGTHS):
            stays = math.exp(-self._seconds / mean)
            self._rows[which] = stays * self._rows[which] + share * mean / self._seconds * (1 - stays) * new
        self._rows *= sight.running / max(float(self._rows.sum()), 1e-9)
        # Starts vary: who is not there in time is expected next, and who is there is expected no more.
        missing = sight.starting - float(self._coming.sum())
        self._coming[0] += max(0.0, missing)
        gone = np.clip(np.cumsum(self._coming) + min(0.0, missing), 0, None)
        self._coming = np.diff(gone, prepend=0.0)

    def _wanted(self, sight: Sight, step: Step) -> int:
        ready = step.least_workers - float(self._coming[0])
        wanted = math.ceil(ready + float(self._coming.sum()) + step.started - 1e-6)
        self._coming = np.append(self._coming[1:], max(0, wanted - sight.workers))
        return wanted


def best_planner(trace: Trace, wait: float, start: float, largest: int, ahead: float, seconds: int) -> Planned | None:
    """The fewest worker-hours with a p95 wait that is not above the one that is allowed; None: none has that."""
    known, best = trace * largest * SLOTS / SERVICE_SECONDS, None
    for guess in GUESSES[: 1 if ahead else None]:
        for share in SHARES:  # a plan for a shorter wait costs more
            policy = Planner(share * wait, start, largest, guess, seconds, known, ahead)
            outcome = simulate(policy, trace, largest, 1, start)
            done = Planned(outcome.p95(), outcome.worker_seconds / 3600)
            if best is not None and done.hours >= best.hours:
                break
            if done.p95 <= wait:
                best = done
                break
    return best
