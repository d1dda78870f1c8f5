"""How long a queued job will wait, by what the scaler last said of its model's workers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from promptq.contract.queues import PRIORITIES
from promptq.queue.observations import PoolRecord


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a job waits.

    Attributes:
        jobs_ahead: that are to begin before it.
        workers: that are there for it; `workers_coming`: that start.
        expected_seconds: until it begins; None: nothing says that it will.
        reason: why there are not more workers.
    """

    jobs_ahead: int
    workers: int
    workers_coming: int
    expected_seconds: float | None
    reason: str


def expected_wait(pool: PoolRecord, priority: str, position: int | None) -> Wait:
    """Of a job that has so many others before it in the queue of its priority; None: it is far back."""
    urgent = [pool.queued.get(name, 0) for name in PRIORITIES[: PRIORITIES.index(priority)]]
    ahead = sum(urgent) + (pool.queued.get(priority, 0) if position is None else position)
    ready = pool.workers - len(pool.coming)
    return Wait(ahead, ready, len(pool.coming), _seconds(pool, ahead + 1, ready), pool.waiting or pool.why)


def _seconds(pool: PoolRecord, jobs: float, ready: int) -> float | None:
    """Until so many jobs have begun: slots that are free take some at once, each worker that comes takes as many as it
    has slots, and between that one begins whenever one ends."""
    if not pool.slots or not pool.service_seconds:
        return None
    jobs -= max(0.0, ready * pool.slots - pool.running)
    now, pace = 0.0, pool.slots / pool.service_seconds
    for comes in sorted(_all_coming(pool, ready)):
        if jobs <= ready * pace * (comes - now):
            break
        jobs -= ready * pace * (comes - now) + pool.slots
        now, ready = comes, ready + 1
        if jobs <= 0:
            return round(now, 3)
    if jobs <= 0:
        return round(now, 3)
    return round(now + jobs / (ready * pace), 3) if ready > 0 else None


def _all_coming(pool: PoolRecord, ready: int) -> list[float]:
    """Those that start; where there is no worker at all, and one is wanted, it will take a start from now."""
    if pool.coming or ready > 0 or not pool.wanted or pool.waiting:
        return list(pool.coming)
    return [pool.start_seconds]
