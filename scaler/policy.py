"""How many workers there should be, and which go first. Pure: time comes in as `now`, steady seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scaler.forecast import Arrivals, Service, Surges
from scaler.load import Limits, Load
from scaler.reasons import Reason
from scaler.staffing import noise, offered_load, slots_for, slots_for_backlog

if TYPE_CHECKING:
    from promptq.queue.observe import WorkerRecord

LOOK_SECONDS = 1.0
"""Arrivals are counted over at least so long."""
BATCH_SHARE = 0.05
"""The part of a start that new arrivals must have lasted, a look at least, before they are taken for a rate."""
HOLD = 1 / (math.e - 1)
"""Of a start: how long what was needed is kept. It is the mean of the best random rule for renting or buying (Karlin,
Manasse, McGeoch and Owicki, Algorithmica 1994); of the fixed ones, a whole start has the best worst case, and this one
costs less in the simulation."""
LEAST_HOLD_SECONDS = 2.0
LEAST_START_SECONDS = 1e-3
PATIENCE_SECONDS = 10.0
"""A queue that stands for so long, at least, adds a worker whatever the forecast says."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a decision expects.

    Attributes:
        arrivals: jobs a second, now; `expected`: the greater of that and what a worker started now would find.
        service_seconds: mean time in service; None before enough jobs have ended.
        need: workers, within the limits; `cause`: which rule asks for so many.
    """

    arrivals: float = 0.0
    expected: float = 0.0
    service_seconds: float | None = None
    need: int = 0
    cause: Reason = Reason.STEADY


@dataclass(frozen=True, slots=True)
class History:
    """What earlier decisions left to the next one; it stays short however many workers there are.

    Attributes:
        at: when the last decision was taken; None before the first one.
        running, ended: jobs, then.
        look: when the present look at the arrivals began, and the total of all jobs then.
        look_seconds: how long looks are.
        highs: the greatest forecasts for as long back as a need is kept, the greatest first.
        idle_since: since when nothing was queued or running.
        last_up, last_down: when workers were last added, and sent away.
        last_rise, last_fall: when arrivals last rose and fell beyond chance.
    """

    at: float | None = None
    running: int = 0
    ended: int = 0
    look: tuple[float, int] = (0.0, 0)
    look_seconds: float = LOOK_SECONDS
    arrivals: Arrivals = field(default_factory=Arrivals)
    service: Service = field(default_factory=Service)
    surges: Surges = field(default_factory=Surges)
    highs: tuple[tuple[float, int], ...] = ()
    idle_since: float | None = None
    last_up: float = -math.inf
    last_down: float = -math.inf
    last_rise: float = -math.inf
    last_fall: float = -math.inf


@dataclass(frozen=True, slots=True)
class Decision:
    """The number of workers to have now, why, and the history for the next decision."""

    workers: int
    reason: Reason
    history: History
    outlook: Outlook = field(default_factory=Outlook)


def decide(load: Load, history: History, limits: Limits, now: float) -> Decision:
    """How many workers there should be, always within the limits."""
    is_look, seen = _learn(load, history, now)
    forecast, outlook = _forecast(load, seen, limits)
    if is_look and outlook.service_seconds is not None:
        level = max(0.0, outlook.arrivals * outlook.service_seconds / limits.slots - load.others)
        is_early = now - seen.surges.latest <= load.start_seconds
        early = limits.workers(load.jobs, load.others) if is_early else 0
        seen = replace(seen, surges=seen.surges.add(seen.arrivals, level, forecast, early, now))
    seen = replace(seen, surges=seen.surges.due(load.start_seconds, now))
    outlook = _need(forecast, outlook, load, seen, limits, now)
    seen = _keep_highs(seen, forecast, max(LEAST_HOLD_SECONDS, load.start_seconds * HOLD), now)
    workers, reason = _choose(load, outlook, seen, limits, now)
    if workers > load.workers:
        seen = replace(seen, last_up=now)
    elif workers < load.workers:
        seen = replace(seen, last_down=now)
    return Decision(workers, reason, seen, outlook)


def choose_retirees(workers: Sequence[WorkerRecord], count: int) -> list[str]:
    """Names of the workers to retire: starting before idle before busy, the youngest and least busy first."""
    rank = {"starting": 0, "idle": 1}
    able = [worker for worker in workers if worker.state != "draining"]
    able.sort(key=lambda w: (rank.get(w.state, 2), w.busy_slots, -(w.started_at or 0)))
    return [worker.name for worker in able[: max(0, count)]]


def _learn(load: Load, history: History, now: float) -> tuple[bool, History]:
    """The history with this moment, and whether a look at the arrivals has ended with it."""
    total = load.jobs + load.ended
    idle_since = None if load.jobs else (now if history.idle_since is None else history.idle_since)
    seen = replace(history, at=now, running=load.running, ended=load.ended, idle_since=idle_since)
    if history.at is None or load.ended < history.ended:  # the totals begin anew
        return False, replace(seen, look=(now, total), arrivals=Arrivals())
    passed = now - history.at
    running = (history.running + load.running) / 2
    seen = replace(seen, service=history.service.add(passed, running, load.ended - history.ended))
    began, before = history.look
    seconds = now - began
    if seconds < LOOK_SECONDS * 0.9:
        return False, seen
    # What every job is, is counted, wherever it is now: so jobs of plain RQ count, and no snapshot is too late for one.
    usual = history.look_seconds if history.arrivals.counts else seconds
    ahead = round(load.start_seconds / usual)
    arrivals = history.arrivals.add(max(0, total - before) * usual / seconds, ahead)
    seen = replace(seen, look=(now, total), look_seconds=usual, arrivals=arrivals)
    if arrivals.change:
        seen = replace(seen, last_rise=now) if arrivals.change > 0 else replace(seen, last_fall=now)
    return True, seen


def _forecast(load: Load, seen: History, limits: Limits) -> tuple[int, Outlook]:
    """Workers for the greater of the arrivals now and when a worker started now would be there."""
    arrivals, look, service = seen.arrivals, seen.look_seconds, seen.service.seconds
    rate = arrivals.at(0) / look
    expected = max(rate, arrivals.at(load.start_seconds / look + 1) / look)
    outlook = Outlook(rate, expected, service)
    if service is None:
        return limits.workers(load.jobs, load.others), outlook
    lasted = _lasted(seen, load.start_seconds)
    service = seen.service.after_a_rise(lasted) or service
    offered = offered_load(expected, service, load.running, lasted)
    target, spread = limits.target_wait_seconds, (1 + arrivals.spread) / 2
    # The spread is that of arrivals and of times in service; the latter's is taken to be 1. There is no margin where a
    # worker comes in time for a job that finds no slot.
    is_in_time = load.start_seconds <= target + LOOK_SECONDS
    slots = offered if is_in_time else slots_for(offered, service, target, spread)
    return limits.workers(slots, load.others), outlook


def _need(forecast: int, outlook: Outlook, load: Load, seen: History, limits: Limits, now: float) -> Outlook:
    """The greatest of what each rule asks for."""
    cause = Reason.DEMAND if outlook.service_seconds is None else Reason.FORECAST
    least = limits.workers(min(1, load.jobs), load.others)
    asked = [
        (max(forecast, least), cause), (_by_backlog(outlook, load, seen, limits), Reason.BACKLOG),
        (seen.surges.workers(now), Reason.RETURNING), (_by_wait(load, seen, limits, now), Reason.WAIT),
    ]  # fmt: skip
    workers, cause = max(asked, key=lambda each: each[0])
    return replace(outlook, need=limits.clamp(workers), cause=cause)


def _by_backlog(outlook: Outlook, load: Load, seen: History, limits: Limits) -> int:
    rate, service, start = outlook.arrivals, outlook.service_seconds, max(load.start_seconds, LEAST_START_SECONDS)
    if service is None or not load.queued:
        return 0
    lasted = _lasted(seen, start)
    workers_by_then = load.workers + load.others - load.starting * min(1.0, load.coming_seconds / start)
    left = load.queued + rate * min(start, lasted) - limits.slots * workers_by_then / service * start
    offered = offered_load(rate, service, load.running, max(0.0, lasted - start))
    return limits.workers(slots_for_backlog(left, offered, service, start, limits.target_wait_seconds), load.others)


def _lasted(seen: History, start: float) -> float:
    """Seconds for which jobs have come at the present rate, less those in which it might have been a batch."""
    look = seen.look_seconds
    return max(0.0, seen.arrivals.age * look - max(look, start * BATCH_SHARE))


def _by_wait(load: Load, seen: History, limits: Limits, now: float) -> int:
    """One more worker for a queue that stands too long, once the last one added has had its chance."""
    patience = max(limits.target_wait_seconds, load.start_seconds, PATIENCE_SECONDS)
    if not load.queued or load.oldest_age_seconds <= patience:
        return 0
    return load.workers + (not load.starting and now - seen.last_up > patience)


def _keep_highs(seen: History, forecast: int, seconds: float, now: float) -> History:
    """What the arrivals needed is remembered for a while, for it would cost a start to meet it anew; where they have
    fallen beyond chance it is over. A backlog that is done does not come back."""
    is_over = seen.last_fall > max(seen.last_rise, now - seconds)
    before = () if is_over else seen.highs
    kept = (high for high in before if high[0] >= now - seconds and high[1] > forecast)
    return replace(seen, highs=(*kept, (now, forecast)))


def _choose(load: Load, outlook: Outlook, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    if outlook.need > load.workers:
        return _grow(load, outlook, seen, limits, now)
    if outlook.need < load.workers:
        return _shrink(load, outlook.need, seen, limits, now)
    is_short = limits.workers(load.jobs, load.others) > load.workers == limits.max_workers
    return load.workers, Reason.AT_MAX if is_short else Reason.STEADY


def _grow(load: Load, outlook: Outlook, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    if load.workers < limits.min_workers:
        return outlook.need, Reason.BELOW_MIN
    if load.workers == 0:
        return outlook.need, Reason.RETURNING if outlook.cause is Reason.RETURNING else Reason.FROM_ZERO
    is_late = load.queued > 0 and load.oldest_age_seconds > limits.target_wait_seconds
    is_surge = is_late or seen.last_rise > seen.last_down or outlook.cause is Reason.RETURNING
    if now - seen.last_down < load.start_seconds and not is_surge:
        return load.workers, Reason.RECENT_CHANGE
    return outlook.need, outlook.cause


def _shrink(load: Load, need: int, seen: History, limits: Limits, now: float) -> tuple[int, Reason]:
    if load.workers > limits.max_workers:
        return limits.max_workers, Reason.AT_MAX
    idle_for = 0.0 if seen.idle_since is None else now - seen.idle_since
    if need == 0 and idle_for >= limits.zero_delay_seconds:
        return 0, Reason.TO_ZERO
    if need == 0 and load.workers == 1:
        return 1, Reason.ZERO_DELAY
    kept = max(1, need, limits.clamp(max(seen.highs[0][1], limits.workers(load.jobs, load.others))))
    if kept >= load.workers:
        return load.workers, Reason.RECENT_NEED
    if now - seen.last_up < load.start_seconds and seen.last_fall <= seen.last_up:
        return load.workers, Reason.RECENT_CHANGE
    if (load.workers - kept) * limits.slots <= noise(load.running):
        return load.workers, Reason.NOISE
    return kept, Reason.FEWER_NEEDED
