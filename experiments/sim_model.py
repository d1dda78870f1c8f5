"""The model under experiments/scaler_sim.py: arrivals, a queue, workers with cold starts, and what a policy costs.

Time goes in steps; all jobs of one step are one cohort, so ten thousand workers cost no more than ten. WorkerLoop times
are exponential: in each step every running row ends with the same chance. Everything random follows from the seed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

SLOTS = 16
SERVICE_SECONDS = 4.0
START_SECONDS = 10.0
TARGET_WAIT_SECONDS = 10.0
STEP_SECONDS = 0.25
DECIDE_SECONDS = 1.0
TRACE_SECONDS = 3600.0

Trace = Callable[[float], float]
"""Share of the largest fleet that the arrivals at a moment keep busy."""

TRACES: dict[str, Trace] = {
    "steady": lambda _at: 0.7,
    "burst": lambda at: 0.9 if 1200 <= at < 1380 else 0.1,
    "daily": lambda at: 0.05 + 0.85 * (1 - math.cos(2 * math.pi * at / TRACE_SECONDS)) / 2,
    "on-off": lambda at: 0.8 if at % 180 < 60 else 0.0,
    "flash 50×": lambda at: 0.9 if 1800 <= at < 2100 else 0.018,
}


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
    arrived: int = 0

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
        waits: jobs by their wait in seconds, rounded down to a step.
        changes: decisions that changed the number of workers.
    """

    waits: dict[float, int] = field(default_factory=dict)
    worker_seconds: float = 0.0
    changes: int = 0
    timeline: list[tuple[float, int, int, int]] = field(default_factory=list)

    def p95(self) -> float:
        """The wait that 95 % of the jobs stay within; jobs never started count with their age at the end."""
        left = 0.95 * sum(self.waits.values())
        for wait in sorted(self.waits):
            left -= self.waits[wait]
            if left <= 0:
                return wait
        return 0.0

    def share_late(self) -> float:
        """Share of jobs that waited longer than the target."""
        late = sum(count for wait, count in self.waits.items() if wait > TARGET_WAIT_SECONDS)
        return late / max(1, sum(self.waits.values()))


class SimulatedFleet:
    """A queue and its workers."""

    def __init__(self, largest: int, seed: int) -> None:
        self.largest = largest
        self.random = np.random.default_rng(seed)
        self.queue: deque[tuple[float, int]] = deque()
        self.queued = self.running = self.ready = self.arrived = 0
        self.starting: deque[tuple[float, int]] = deque()
        self.outcome = Outcome()

    @property
    def coming(self) -> int:
        """Workers that are starting."""
        return sum(count for _, count in self.starting)

    @property
    def draining(self) -> int:
        """Workers told to go that still run rows."""
        return max(0, math.ceil((self.running - self.ready * SLOTS) / SLOTS))

    def step(self, now: float, jobs_per_second: float) -> None:
        """Starts, arrivals, ends, claims."""
        while self.starting and self.starting[0][0] <= now:
            self.ready += self.starting.popleft()[1]
        if arrived := int(self.random.poisson(jobs_per_second * STEP_SECONDS)):
            self.queue.append((now, arrived))
            self.queued += arrived
            self.arrived += arrived
        self.running -= int(self.random.binomial(self.running, 1 - math.exp(-STEP_SECONDS / SERVICE_SECONDS)))
        self._claim(now)
        self.outcome.worker_seconds += (self.ready + self.coming + self.draining) * STEP_SECONDS

    def obey(self, wanted: int, now: float) -> None:
        """Go to the wanted number: new workers start cold; starting ones go first, busy ones drain."""
        wanted = max(0, min(self.largest, wanted))
        change = wanted - self.ready - self.coming
        self.outcome.changes += change != 0
        if change > 0:
            self.starting.append((now + START_SECONDS, change))
        while change < 0 and self.starting:
            due, count = self.starting.pop()
            kept = max(0, count + change)
            change += count - kept
            if kept:
                self.starting.append((due, kept))
        self.ready += min(0, change)

    def sight(self, now: float) -> Sight:
        """What there is to see."""
        age = now - self.queue[0][0] if self.queue else 0.0
        workers = self.ready + self.coming
        return Sight(now, self.queued, self.running, age, workers, self.coming, self.largest, self.arrived)

    def _claim(self, now: float) -> None:
        room = max(0, self.ready * SLOTS - self.running)
        while room and self.queue:
            since, count = self.queue.popleft()
            taken = min(room, count)
            self._record(now - since, taken)
            if count > taken:
                self.queue.appendleft((since, count - taken))
            room, self.running, self.queued = room - taken, self.running + taken, self.queued - taken

    def _record(self, wait: float, count: int) -> None:
        self.outcome.waits[wait] = self.outcome.waits.get(wait, 0) + count

    def close(self, now: float) -> Outcome:
        """Jobs that nobody took count with the wait they have had."""
        for since, count in self.queue:
            self._record(now - since, count)
        return self.outcome


def simulate(policy: Policy, trace: Trace, largest: int, seed: int) -> Outcome:
    """One run of a trace over a fleet of at most `largest` workers."""
    fleet = SimulatedFleet(largest, seed)
    full = largest * SLOTS / SERVICE_SECONDS
    per_decision = round(DECIDE_SECONDS / STEP_SECONDS)
    for number in range(round(TRACE_SECONDS / STEP_SECONDS)):
        now = number * STEP_SECONDS
        fleet.step(now, trace(now) * full)
        if number % per_decision == 0:
            sight = fleet.sight(now)
            fleet.obey(policy(sight), now)
            fleet.outcome.timeline.append((now, sight.jobs, fleet.ready, fleet.ready + fleet.coming))
    return fleet.close(TRACE_SECONDS)
