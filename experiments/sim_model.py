"""The model under experiments/scaler_sim.py: a queue, workers whose rows end one by one, and what a policy costs.

- **Rows.** Each worker has rows of its own; claims spread over the free rows of all workers that are ready.
- **Lengths** are hyperexponential: the variance is 4.6 times the mean's square, as a few long texts make it.
- **Rows slow one another**: a full worker's rows take a quarter longer than a single one.
- **Starts** take a lognormal time, and are paid for from the decision on.
- **A worker that goes** puts its rows back with their progress, in front of the queue, and is gone after a second; or,
  where progress is not kept, it takes no more and is paid for until its last row has ended.

Time goes in steps. Everything random follows from the seed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sim_traces import Trace

from scaler.measured import Measured

SLOTS = 16
SERVICE_SECONDS = 4.0
"""Mean of a row's time in a full worker."""
VARIANCE = 4.6
SLOWER = 0.25
START_SIGMA = 0.25
DRAIN_SECONDS = 1.0
STEP_SECONDS = 0.5
DECIDE_SECONDS = 1.0
_SHORT = (1 + math.sqrt((VARIANCE - 1) / (VARIANCE + 1))) / 2
LENGTHS = ((_SHORT, SERVICE_SECONDS / (2 * _SHORT)), (1 - _SHORT, SERVICE_SECONDS / (2 * (1 - _SHORT))))
"""Share and mean length of the short jobs, and of the long ones."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a policy sees. `workers` counts those that work or are starting, not those that drain."""

    now: float
    queued: int
    running: int
    oldest_age: float
    workers: int
    starting: int
    largest: int
    ended: int
    start_seconds: float
    coming_seconds: float

    @property
    def jobs(self) -> int:
        """All that is queued or runs."""
        return self.queued + self.running


Policy = Callable[[Sight], int]
"""The number of workers wanted. Called every second."""


@dataclass(slots=True)
class Outcome:
    """What a run cost.

    Attributes:
        waits: jobs by their wait in seconds until they were first claimed, rounded down to a step.
        changes: decisions that changed the number of workers.
        starts: workers that were started.
    """

    waits: dict[float, int] = field(default_factory=dict)
    worker_seconds: float = 0.0
    changes: int = 0
    starts: int = 0

    def p95(self) -> float:
        """The wait that 95 % of the jobs stay within; jobs never started count with their age at the end."""
        left = 0.95 * sum(self.waits.values())
        for wait in sorted(self.waits):
            left -= self.waits[wait]
            if left <= 0:
                return wait
        return 0.0


class SimulatedFleet:
    """A queue and its workers: a line of each array is one of them.

    Attributes:
        left: seconds that each row has left in a full worker; 0: the row is free.
        begun, due: when the worker was started, and when it can claim.
        gone: when a draining worker is gone; infinite: it does not drain; NaN: when its rows are.
    """

    def __init__(self, largest: int, seed: int, start_seconds: float, keeps_progress: bool) -> None:
        self.largest, self.start_seconds, self.keeps_progress = largest, start_seconds, keeps_progress
        self.random = np.random.default_rng(seed)
        self.left: Any = np.zeros((0, SLOTS), np.float32)
        self.begun: Any = np.zeros(0)
        self.due: Any = np.zeros(0)
        self.gone: Any = np.zeros(0)
        self.queue: deque[tuple[float, int]] = deque()
        self.put_back: Any = np.zeros(0, np.float32)
        self.queued = self.running = self.ended = 0
        self.measured = Measured()
        self.outcome = Outcome()

    def step(self, now: float, jobs_per_second: float) -> None:
        """Arrivals, ends, claims."""
        if arrived := int(self.random.poisson(jobs_per_second * STEP_SECONDS)):
            self.queue.append((now, arrived))
            self.queued += arrived
        self._run()
        self._leave(now)
        self._claim(now)
        self.outcome.worker_seconds += len(self.due) * STEP_SECONDS

    def _run(self) -> None:
        busy = self.left > 0
        rows = busy.sum(axis=1)
        speed = (1 + SLOWER) / (1 + SLOWER * np.maximum(rows - 1, 0) / (SLOTS - 1)) * STEP_SECONDS
        np.maximum(self.left - speed[:, None].astype(np.float32), 0, out=self.left)
        running = int((self.left > 0).sum())
        self.ended += int(rows.sum()) - running
        self.running = running

    def _leave(self, now: float) -> None:
        if np.isfinite(self.gone).all() or not len(self.gone):
            ends = self.gone <= now
        else:
            ends = (self.gone <= now) | (np.isnan(self.gone) & ~(self.left > 0).any(axis=1))
        if ends.any():
            self._keep(~ends)

    def _keep(self, which: Any) -> None:
        self.left, self.begun = self.left[which], self.begun[which]
        self.due, self.gone = self.due[which], self.gone[which]

    def _claim(self, now: float) -> None:
        waiting = self.queued
        if not waiting or not len(self.due):
            return
        can = (self.due <= now) & np.isinf(self.gone)
        # Row by row over all workers, so that what is claimed together spreads over them.
        free = np.flatnonzero(((self.left <= 0) & can[:, None]).T)
        count = min(len(free), waiting)
        if not count:
            return
        places = free[(int(self.random.integers(len(free))) + np.arange(count)) % len(free)]
        again = min(count, len(self.put_back))
        lengths = np.concatenate([self.put_back[:again], self._lengths(count - again)])
        self.put_back = self.put_back[again:]
        self.left[places % len(self.due), places // len(self.due)] = lengths
        self.queued, self.running = self.queued - count, self.running + count
        self._count_waits(now, count - again)

    def _lengths(self, count: int) -> Any:
        """A row holds its place until the end of a step, on average half of one too long: that is taken off."""
        means = np.where(self.random.random(count) < LENGTHS[0][0], LENGTHS[0][1], LENGTHS[1][1])
        return np.maximum(self.random.exponential(means) - STEP_SECONDS / 2, 1e-3).astype(np.float32)

    def _count_waits(self, now: float, count: int) -> None:
        while count:
            since, there = self.queue.popleft()
            taken = min(there, count)
            self.outcome.waits[now - since] = self.outcome.waits.get(now - since, 0) + taken
            if there > taken:
                self.queue.appendleft((since, there - taken))
            count -= taken

    def obey(self, wanted: int, now: float) -> None:
        """Go to the wanted number."""
        stays = np.isinf(self.gone)
        change = max(0, min(self.largest, wanted)) - int(stays.sum())
        self.outcome.changes += change != 0
        if change > 0:
            self._start(change, now)
        elif change < 0:
            self._drain(np.flatnonzero(stays), -change, now)

    def _start(self, count: int, now: float) -> None:
        self.outcome.starts += count
        seconds = self.start_seconds * self.random.lognormal(0, START_SIGMA, count)
        self.measured = self.measured.started(float(seconds.mean()), False)
        self.left = np.concatenate([self.left, np.zeros((count, SLOTS), np.float32)])
        self.begun = np.concatenate([self.begun, np.full(count, now)])
        self.due = np.concatenate([self.due, now + seconds])
        self.gone = np.concatenate([self.gone, np.full(count, np.inf)])

    def _drain(self, stays: Any, count: int, now: float) -> None:
        """Starting ones go first, then the least busy, of those the youngest, as the scaler chooses."""
        rows = (self.left[stays] > 0).sum(axis=1)
        go = stays[np.lexsort((-stays, rows, self.due[stays] <= now))[:count]]
        if self.keeps_progress:
            rows_of = self.left[go]
            back = rows_of[rows_of > 0]
            self.put_back = np.concatenate([back, self.put_back])
            self.queued, self.running = self.queued + len(back), self.running - len(back)
            self.left[go] = 0
            self.gone[go] = np.where(self.due[go] <= now, now + DRAIN_SECONDS, now)
        else:
            self.gone[go] = np.where(self.due[go] <= now, np.nan, now)

    def sight(self, now: float) -> Sight:
        """What there is to see."""
        age = now - self.queue[0][0] if self.queue else 0.0
        stays = np.isinf(self.gone)
        starting = self.begun[stays & (self.due > now)]
        coming = float(np.mean(self.measured.left_seconds(starting, now))) if len(starting) else 0.0
        return Sight(
            now, self.queued, self.running, age, int(stays.sum()), len(starting), self.largest, self.ended,
            self.measured.next_start_seconds, coming,
        )  # fmt: skip

    def close(self, now: float) -> Outcome:
        """Jobs that nobody took count with the wait they have had."""
        for since, count in self.queue:
            self.outcome.waits[now - since] = self.outcome.waits.get(now - since, 0) + count
        return self.outcome


def simulate(
    policy: Policy, trace: Trace, largest: int, seed: int, start_seconds: float = 10.0, keeps_progress: bool = True
) -> Outcome:
    """One run of a trace over a fleet of at most `largest` workers."""
    fleet = SimulatedFleet(largest, seed, start_seconds, keeps_progress)
    full = largest * SLOTS / SERVICE_SECONDS
    per_decision = round(DECIDE_SECONDS / STEP_SECONDS)
    for number in range(round(len(trace) / STEP_SECONDS)):
        now = number * STEP_SECONDS
        fleet.step(now, trace[int(now)] * full)
        if number % per_decision == 0:
            fleet.obey(policy(fleet.sight(now)), now)
    return fleet.close(len(trace))
