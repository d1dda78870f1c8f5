"""One round of the scaler: look, decide, act, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from promptq.contract.errors import RedisUnavailable
from promptq.queue import measurements
from promptq.queue.observe import Observer, Snapshot, WorkerRecord
from promptq.queue.store import JobStore
from promptq.runtime import failpoints
from scaler.fleets.base import REASONS, Exit, Fleet
from scaler.housekeeping import Housekeeping
from scaler.leadership import Leadership
from scaler.pools import PoolSpec, stranded
from scaler.reaper import Reaper
from scaler.scaling import Scaling

log = logging.getLogger(__name__)

DRAIN_POLL_SECONDS = 0.05
KEEP_SECONDS = 10.0
"""Between two times that what was measured is kept."""


class ScalerLoop:
    """The scaler's program for `promptq.runtime.lifecycle.run`.

    Wall time (`now`) goes to Redis and to people; everything that lasts is measured in steady seconds (`at`).

    Args:
        reload: reads the catalogue again if that was asked for; gives the new pools, or None.
        leadership: None: this is the only scaler.
    """

    def __init__(
        self, fleet: Fleet, scaling: Scaling, store: JobStore, clock: Callable[[], float] = time.monotonic,
        reload: Callable[[], Sequence[PoolSpec] | None] = lambda: None, leadership: Leadership | None = None,
    ) -> None:  # fmt: skip
        self._fleet = fleet
        self._scaling = scaling
        self._store = store
        self._observer = Observer(store.client, store.settings)
        self._metrics = scaling.metrics
        self._clock = clock
        self._reload = reload
        self._leadership = leadership
        self._leads = False
        self._reaper = Reaper(store)
        self._housekeeping = Housekeeping(store)
        self._redis_is_down = False
        self._to_forget: list[Exit] = []
        self._others: list[WorkerRecord] = []
        self._keeps_at: float | None = None

    def initialize(self) -> None:
        """Every counter begins at 0."""
        for name in REASONS:
            self._metrics.worker_exits.labels(name)

    def loop(self, now: float) -> None:
        """One round; of a scaler that does not lead, only a look whether it does now. While Redis cannot be read, the
        workers there are go on."""
        at = self._clock()
        if self._leads or not self._fleet.capabilities.outlives:
            self._collect(at)
        try:
            if self._is_leader(at):
                self._round(now, at)
            else:
                self._forget_dead()
            self._note_redis(None)
        except RedisUnavailable as error:
            self._hold(error, at)
        self._export(now)

    def shutdown(self) -> None:
        """Let another scaler lead. Workers that outlive this one go on; else retire every one, and wait for the last;
        the fleet kills those that take too long."""
        if self._leadership:
            self._leadership.resign()
        if self._fleet.capabilities.outlives:
            log.info("Stopping: the workers go on.")
            return
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
            self._to_forget.append(end)

    def _is_leader(self, at: float) -> bool:
        led, self._leads = self._leads, self._leadership.renew() if self._leadership else True
        if self._leads and not led:
            self._fleet.take_over(at)
            self._scaling.announce()
        if led and not self._leads:
            self._step_down(at)
        return self._leads

    def _step_down(self, at: float) -> None:
        log.warning("Another scaler leads now; this one waits.")
        self._scaling.withdraw()
        if not self._fleet.capabilities.outlives:
            self._fleet.retire([worker.name for worker in self._fleet.roster()], at)

    def _round(self, now: float, at: float) -> None:
        if (specs := self._reload()) is not None:
            self._scaling.replace(specs)
        self._forget_dead()
        self._housekeeping.run(at)
        self._reaper.reap(at)
        if self._keeps_at is None:
            self._scaling.recall(measurements.recall(self._store.client, self._store.keys, self._scaling.names))
            self._keeps_at = at + KEEP_SECONDS
        snapshot = self._observer.snapshot()
        self._scaling.take_in(snapshot, at)
        ours = {worker.name for worker in self._fleet.roster()}
        self._others = [worker for worker in snapshot.workers if worker.name not in ours]
        self._scaling.scale(snapshot, at)
        self._wake_the_idle(snapshot)
        self._publish(now, at)
        self._fleet.prepare(self._scaling.wanted, at)
        self._metrics.cache_entries.set(self._observer.cache_entries())

    def _forget_dead(self) -> None:
        """Take back the claims of workers that the fleet has seen end, then their registrations."""
        while self._to_forget:
            end = self._to_forget[-1]
            failpoints.hit("scaler.exit_seen")
            if self._fleet.capabilities.sees_exits and end.is_certain:
                self._reaper.take_back(end.name)
            failpoints.hit("scaler.taken_back")
            self._observer.forget_worker(end.name)
            self._to_forget.pop()

    def _wake_the_idle(self, snapshot: Snapshot) -> None:
        # A job put in by plain RQ announces itself to nobody.
        if snapshot.queued and any(worker.state == "idle" for worker in snapshot.workers):
            self._store.wake()

    def _publish(self, now: float, at: float) -> None:
        self._observer.publish_drain_rates(self._scaling.drain_rates())
        trouble = stranded(self._observer.stranded(self._scaling.names))
        leader = self._leadership.name if self._leadership else ""
        self._observer.publish_fleet(replace(self._scaling.record(now, at, trouble), leader=leader))
        if self._keeps_at is not None and at >= self._keeps_at:
            measurements.keep(self._store.client, self._store.keys, self._scaling.measured())
            self._keeps_at = at + KEEP_SECONDS

    def _hold(self, error: RedisUnavailable, at: float) -> None:
        self._note_redis(error)
        self._reaper.note_outage()
        self._fleet.pause_clocks(at)
        if self._leads:
            self._scaling.hold()

    def _note_redis(self, error: RedisUnavailable | None) -> None:
        is_down = error is not None
        if is_down and not self._redis_is_down:
            log.warning("%s Holding %d workers.", error, self._scaling.wanted)
        elif self._redis_is_down and not is_down:
            log.info("Redis answers again.")
        self._redis_is_down = is_down

    def _export(self, now: float) -> None:
        self._metrics.leads.set(self._leads)
        if self._leads:
            self._scaling.export(self._others)
        self._metrics.last_loop.set(now)
