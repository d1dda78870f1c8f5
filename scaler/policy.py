"""How many workers there should be, and which go first. Pure: time comes in as `now`, steady seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import ge, le
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptq.contract.settings import ScalerSettings
    from promptq.queue.observe import WorkerRecord

TOLERANCE = 0.1
BURST_SECONDS = 6.0
BURST_FACTOR = 2

Sample = tuple[float, int]
Samples = tuple[Sample, ...]


class Reason(StrEnum):
    """Why a decision was taken: stable names, a label of `promptq_scaler_decisions_total`."""

    STEADY = "steady"
    TOLERANCE = "tolerance"
    AT_MAX = "at_max"
    DEMAND = "demand"
    WAIT = "wait"
    BURST = "burst"
    FROM_ZERO = "from_zero"
    BELOW_MIN = "below_min"
    UP_DELAY = "up_delay"
    WINDOW_DOWN = "window_down"
    DOWN_DELAY = "down_delay"
    TO_ZERO = "to_zero"
    ZERO_DELAY = "zero_delay"
    HELD_REDIS_DOWN = "held_redis_down"
    HELD_BACKOFF = "held_backoff"
    HELD_DRAINING = "held_draining"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds and paces the number of workers. Delays are in seconds; see ScalerSettings."""

    min_workers: int
    max_workers: int
    target_jobs_per_worker: float = 16
    target_wait_seconds: float = 10
    up_delay_seconds: float = 0
    down_window_seconds: float = 30
    zero_delay_seconds: float = 300

    @classmethod
    def of(cls, settings: ScalerSettings, min_workers: int, max_workers: int, slots: float = 16) -> Limits:
        """The limits in the settings, for a pool with these bounds whose workers have so many slots."""
        target = slots if settings.target_jobs_per_worker == "auto" else settings.target_jobs_per_worker
        return cls(
            min_workers, max_workers, target, settings.target_wait_seconds,
            settings.up_delay_seconds, settings.down_window_seconds, settings.zero_delay_seconds,
        )  # fmt: skip

    def clamp(self, workers: int) -> int:
        """The nearest number of workers that is allowed."""
        return max(self.min_workers, min(self.max_workers, workers))


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, and who is there to do it.

    Attributes:
        oldest_age_seconds: how long the job that has waited longest has waited.
        workers: processes that work or will: starting ones count, draining ones do not.
        starting: those of them that have not registered yet.
        others: as many workers' capacity is there that somebody else started.
    """

    queued: int
    running: int
    oldest_age_seconds: float
    workers: int
    starting: int = 0
    others: float = 0.0

    @property
    def demand(self) -> int:
        """Jobs that need a worker."""
        return self.queued + self.running


@dataclass(frozen=True, slots=True)
class History:
    """What earlier decisions left to the next one.

    Each tuple holds only the samples that can still become the extreme of their window, so it stays
    short however many workers there are; the extreme itself comes first.

    Attributes:
        since: when the unbroken watch began; None before the first decision.
        idle_since: since when nothing was queued or running.
        last_up: when workers were last added.
        lows: the least need over the up-delay.
        highs: the greatest need over the down-window.
        demands: the least number of jobs over the burst's window.
    """

    since: float | None = None
    idle_since: float | None = None
    last_up: float = -math.inf
    lows: Samples = ()
    highs: Samples = ()
    demands: Samples = ()

    def watched(self, seconds: float, now: float) -> bool:
        """Whether the watch has lasted that long: what was not seen cannot be said to have lasted."""
        return self.since is not None and now - self.since >= seconds


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of workers to have now, why, and the history for the next decision."""

    workers: int
    reason: Reason
    history: History


@dataclass(frozen=True, slots=True)
class _Need:
    by_demand: int
    by_wait: int
    burst: bool

    @property
    def workers(self) -> int:
        return max(self.by_demand, self.by_wait)


def decide(load: Load, history: History, limits: Limits, now: float) -> Decision:
    """How many workers there should be, always within the limits."""
    need = _need(load, history, limits, now)
    seen = _remember(history, load, need, limits, now)
    workers, reason = _choose(load, need, seen, limits, now)
    if workers > load.workers:
        seen = replace(seen, last_up=now)
    return Decision(workers, reason, seen)


def choose_retirees(workers: Sequence[WorkerRecord], count: int) -> list[str]:
    """Names of the workers to retire: starting before idle before busy, the youngest and least busy first."""
    rank = {"starting": 0, "idle": 1}
    able = [worker for worker in workers if worker.state != "draining"]
    able.sort(key=lambda w: (rank.get(w.state, 2), w.busy_slots, -(w.started_at or 0)))
    return [worker.name for worker in able[: max(0, count)]]


def _need(load: Load, history: History, limits: Limits, now: float) -> _Need:
    calm = next((jobs for at, jobs in history.demands if at >= now - BURST_SECONDS), None)
    burst = calm is not None and load.demand >= BURST_FACTOR * calm
    return _Need(limits.clamp(_by_demand(load, limits)), limits.clamp(_by_wait(load, history, limits, now)), burst)


def _by_demand(load: Load, limits: Limits) -> int:
    """Downwards only is there a tolerance: a worker too many costs little, but jobs without a slot wait."""
    exact = _exact(load, limits)
    if load.workers and 0 <= 1 - exact / load.workers <= TOLERANCE + 1e-9:
        return load.workers
    return _least(load, limits)


def _least(load: Load, limits: Limits) -> int:
    """The fewest workers that have a slot for every job."""
    return math.ceil(_exact(load, limits) - 1e-9)


def _exact(load: Load, limits: Limits) -> float:
    """Workers' worth of jobs that others' workers have no slots for."""
    return max(0.0, load.demand / limits.target_jobs_per_worker - load.others)


def _by_wait(load: Load, history: History, limits: Limits, now: float) -> int:
    """One more worker for a queue that stands too long, once the last one added has had its chance."""
    if not load.queued or load.oldest_age_seconds <= limits.target_wait_seconds:
        return 0
    added = max(history.last_up, now if history.since is None else history.since)
    may_add = not load.starting and now - added >= limits.target_wait_seconds
    return load.workers + may_add


def _remember(history: History, load: Load, need: _Need, limits: Limits, now: float) -> History:
    idle_since = now if history.idle_since is None else history.idle_since
    return replace(
        history,
        since=now if history.since is None else history.since,
        idle_since=None if load.demand else idle_since,
        lows=_slide(history.lows, now, need.workers, limits.up_delay_seconds, le),
        highs=_slide(history.highs, now, need.workers, limits.down_window_seconds, ge),
        demands=_slide(history.demands, now, load.demand, BURST_SECONDS, le),
    )


def _slide(samples: Samples, now: float, value: int, seconds: float, beats: Callable[[int, int], bool]) -> Samples:
    """Add a sample, and drop those that are too old or can never again be the extreme."""
    kept = (sample for sample in samples if sample[0] >= now - seconds and not beats(value, sample[1]))
    return (*kept, (now, value))


def _choose(load: Load, need: _Need, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    if need.workers > load.workers:
        return _grow(load, need, seen, limits, now)
    if need.workers < load.workers:
        return _shrink(load, need.workers, seen, limits, now)
    exact = _exact(load, limits)
    if exact > load.workers == limits.max_workers:
        return load.workers, Reason.AT_MAX
    tolerated = limits.clamp(_least(load, limits)) < load.workers == need.by_demand
    return load.workers, Reason.TOLERANCE if tolerated else Reason.STEADY


def _grow(load: Load, need: _Need, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    lasting = seen.lows[0][1] if seen.watched(limits.up_delay_seconds, now) else 0
    sure = max(lasting, need.by_demand) if need.burst else lasting
    if load.workers < limits.min_workers:
        return max(limits.min_workers, sure), Reason.BELOW_MIN
    if load.workers == 0:
        return max(1, sure), Reason.FROM_ZERO
    if need.burst and need.by_demand > load.workers:
        return need.workers, Reason.BURST
    if need.by_wait > max(load.workers, lasting):
        return need.by_wait, Reason.WAIT
    return (lasting, Reason.DEMAND) if lasting > load.workers else (load.workers, Reason.UP_DELAY)


def _shrink(load: Load, need: int, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    if load.workers > limits.max_workers:
        return limits.max_workers, Reason.AT_MAX
    idle_for = 0.0 if seen.idle_since is None else now - seen.idle_since
    if need == 0 and idle_for >= limits.zero_delay_seconds:
        return 0, Reason.TO_ZERO
    if need == 0 and load.workers == 1:
        return 1, Reason.ZERO_DELAY
    highest = max(1, seen.highs[0][1]) if seen.watched(limits.down_window_seconds, now) else load.workers
    return (highest, Reason.WINDOW_DOWN) if highest < load.workers else (load.workers, Reason.DOWN_DELAY)
