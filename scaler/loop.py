"""One round of the scaler: look, decide, act, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import ScalerMetrics
from promptq.queue.observe import FleetRecord, Observer, Snapshot, WorkerRecord
from promptq.queue.store import JobStore
from scaler.fleets.base import REASONS, Fleet
from scaler.housekeeping import Housekeeping
from scaler.policy import Decision, History, Limits, Load, Reason, choose_retirees, decide, hold
from scaler.rates import Rates
from scaler.reaper import Reaper

log = logging.getLogger(__name__)

DRAIN_POLL_SECONDS = 0.05
STATES = ("starting", "idle", "busy", "draining")
OUTCOMES: Mapping[str, Sequence[Reason]] = {
    "up": (Reason.DEMAND, Reason.WAIT, Reason.BURST, Reason.FROM_ZERO, Reason.BELOW_MIN),
    "down": (Reason.WINDOW_DOWN, Reason.TO_ZERO, Reason.AT_MAX),
    "hold": (
        Reason.STEADY, Reason.TOLERANCE, Reason.AT_MAX, Reason.UP_DELAY, Reason.DOWN_DELAY, Reason.ZERO_DELAY,
        Reason.HELD_REDIS_DOWN, Reason.HELD_BACKOFF, Reason.HELD_DRAINING,
    ),
}  # fmt: skip
"""Which reasons go with which action."""


class ScalerLoop:
    """The scaler's program for `promptq.runtime.lifecycle.run`.

    Wall time (`now`) goes to Redis and to people; everything that lasts is measured in steady seconds (`at`).
    """

    def __init__(
        self, fleet: Fleet, limits: Limits, store: JobStore, metrics: ScalerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._fleet = fleet
        self._limits = limits
        self._store = store
        self._observer = Observer(store.client, store.settings)
        self._metrics = metrics
        self._clock = clock
        self._reaper = Reaper(store)
        self._housekeeping = Housekeeping(store)
        self._rates = Rates()
        self._history = History()
        self._wanted = 0
        self._redis_is_down = False
        self._to_forget: list[str] = []
        self._others: list[WorkerRecord] = []

    def initialize(self) -> None:
        """Say within which bounds it scales; every counter begins at 0, or Prometheus would not see its first step."""
        least, most = self._limits.min_workers, self._limits.max_workers
        span = f"{most}" if least == most else f"{least} to {most}"
        log.info("Keeping %s worker%s.", span, "" if most == 1 else "s")
        for action, reasons in OUTCOMES.items():
            for reason in reasons:
                self._metrics.decisions.labels(action, reason)
        for name in REASONS:
            self._metrics.worker_exits.labels(name)

    def loop(self, now: float) -> None:
        """One round. While Redis cannot be read, the workers there are go on."""
        at = self._clock()
        self._collect(at)
        try:
            self._round(now, at)
            self._note_redis(None)
        except RedisUnavailable as error:
            self._hold(error, at)
        self._export(now)

    def shutdown(self) -> None:
        """Retire every worker, and wait for the last; the fleet kills those that take too long."""
        log.info("Stopping: %d workers drain.", len(self._fleet.roster()))
        self._fleet.retire_all(self._clock())
        while self._fleet.roster():
            time.sleep(DRAIN_POLL_SECONDS)
            self._collect(self._clock())
        try:
            self._forget_dead()
        except RedisUnavailable as error:
            log.warning("What dead workers held, and their registrations, end by themselves: %s", error)

    def _collect(self, at: float) -> None:
        for end in self._fleet.poll(at):
            self._metrics.worker_exits.labels(end.reason).inc()
            self._to_forget.append(end.name)

    def _round(self, now: float, at: float) -> None:
        self._forget_dead()
        self._housekeeping.run(at)
        self._reaper.reap(at)
        snapshot = self._observer.snapshot()
        self._take_in(snapshot, at)
        load = _load(snapshot, self._fleet.roster())
        decision = decide(load, self._history, self._limits, at)
        self._history = decision.history
        self._act(decision, load, at)
        self._wake_the_idle(snapshot)
        self._publish(now, at)
        self._fleet.prepare(self._wanted, at)
        self._metrics.cache_entries.set(self._observer.cache_entries())

    def _forget_dead(self) -> None:
        """Take back the claims of workers that the fleet has seen end, then their registrations."""
        while self._to_forget:
            name = self._to_forget[-1]
            if self._fleet.capabilities.sees_exits:
                self._reaper.take_back(name)
            self._observer.forget_worker(name)
            self._to_forget.pop()

    def _take_in(self, snapshot: Snapshot, at: float) -> None:
        for seconds in self._fleet.observe(snapshot.workers, at):
            self._metrics.startup.observe(seconds)
        ours = {worker.name for worker in self._fleet.roster()}
        self._others = [worker for worker in snapshot.workers if worker.name not in ours]
        self._rates.update(snapshot.totals, snapshot.queued + snapshot.running > 0, at)

    def _act(self, decision: Decision, load: Load, at: float) -> None:
        change = decision.workers - load.workers
        if change > 0:
            change = self._fleet.spawn(change, at)
        elif change < 0:
            self._fleet.retire(choose_retirees(self._fleet.roster(), -change), at)
        prevented = decision.workers > load.workers and not change
        self._tell(self._hindrance() if prevented else decision.reason, change, load)
        self._wanted = decision.workers

    def _hindrance(self) -> Reason:
        return Reason.HELD_BACKOFF if self._fleet.backs_off else Reason.HELD_DRAINING

    def _tell(self, reason: Reason, change: int, load: Load) -> None:
        action = "up" if change > 0 else "down" if change < 0 else "hold"
        self._metrics.decisions.labels(action, reason).inc()
        if change:
            log.info(
                "%d → %d workers (%s): %d queued, %d running, oldest %.1f s, %.2f jobs/s in, %.2f out.",
                load.workers, load.workers + change, reason, load.queued, load.running, load.oldest_age_seconds,
                self._rates.arrivals.per_second, self._rates.drain.per_second,
            )  # fmt: skip

    def _wake_the_idle(self, snapshot: Snapshot) -> None:
        # A job put in by plain RQ announces itself to nobody.
        if snapshot.queued and any(worker.state == "idle" for worker in snapshot.workers):
            self._store.wake()

    def _publish(self, now: float, at: float) -> None:
        self._observer.publish_drain_rate(self._rates.drain.per_second)
        starting = [worker.name for worker in self._fleet.roster() if worker.state == "starting"]
        retry_in = self._fleet.retry_in(at)
        self._observer.publish_fleet(
            FleetRecord(
                self._limits.min_workers, self._limits.max_workers, self._wanted, starting, self._fleet.trouble,
                None if retry_in is None else now + retry_in,
            )
        )  # fmt: skip

    def _hold(self, error: RedisUnavailable, at: float) -> None:
        self._note_redis(error)
        self._reaper.note_outage()
        self._fleet.pause_clocks(at)
        decision = hold(self._wanted)
        self._history = decision.history
        self._metrics.decisions.labels("hold", decision.reason).inc()

    def _note_redis(self, error: RedisUnavailable | None) -> None:
        is_down = error is not None
        if is_down and not self._redis_is_down:
            log.warning("%s Holding %d workers.", error, self._wanted)
        elif self._redis_is_down and not is_down:
            log.info("Redis answers again.")
        self._redis_is_down = is_down

    def _export(self, now: float) -> None:
        states = [worker.state for worker in (*self._fleet.roster(), *self._others)]
        for state in STATES:
            self._metrics.workers.labels(state).set(states.count(state))
        self._metrics.wanted.set(self._wanted)
        self._metrics.last_loop.set(now)


def _load(snapshot: Snapshot, roster: Sequence[WorkerRecord]) -> Load:
    states = [worker.state for worker in roster]
    return Load(
        queued=snapshot.queued, running=snapshot.running, oldest_age_seconds=snapshot.oldest_age_seconds,
        workers=len(states) - states.count("draining"), starting=states.count("starting"),
    )  # fmt: skip
