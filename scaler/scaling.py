"""All pools together: what each wants, what each gets, and what the fleet is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from promptq.contract.metrics import ScalerMetrics
from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import FleetRecord, Snapshot, WorkerRecord
from scaler.allocation import Grant, Share, allocate
from scaler.fleets.base import Fleet
from scaler.measured import Measured
from scaler.policy import Decision, choose_retirees
from scaler.pools import Pool, PoolSpec
from scaler.reasons import Reason

log = logging.getLogger(__name__)

STATES = ("starting", "idle", "busy", "draining")
OUTCOMES: Mapping[str, Sequence[Reason | Share]] = {
    "up": (
        Reason.DEMAND, Reason.FORECAST, Reason.BACKLOG, Reason.RETURNING, Reason.WAIT, Reason.FROM_ZERO,
        Reason.BELOW_MIN,
    ),
    "down": (Reason.FEWER_NEEDED, Reason.TO_ZERO, Reason.AT_MAX, Reason.LEAVING, Share.GAVE_WAY),
    "hold": (
        Reason.STEADY, Reason.NOISE, Reason.AT_MAX, Reason.RECENT_NEED, Reason.RECENT_CHANGE, Reason.ZERO_DELAY,
        Reason.HELD_REDIS_DOWN, Reason.HELD_BACKOFF, Reason.HELD_DRAINING, Reason.LEAVING, Share.WAITS_FOR_ROOM,
        Share.SHARES_ROOM,
    ),
}  # fmt: skip
"""Which reasons go with which action."""


class Scaling:
    """The pools of one fleet. `at` is in steady seconds.

    Args:
        specs: the pools that there are to be.
        rooms: units of each resource.
        settings: have the least stay of a worker, while another pool waits for its room.
    """

    def __init__(
        self, fleet: Fleet, specs: Sequence[PoolSpec], rooms: Mapping[str, int], metrics: ScalerMetrics,
        settings: ScalerSettings,
    ) -> None:  # fmt: skip
        self._fleet = fleet
        self._pools = {spec.name: Pool(spec) for spec in specs}
        self._rooms = rooms
        self.metrics = metrics
        self._least_stay_seconds = settings.least_stay_seconds

    @property
    def wanted(self) -> int:
        """Workers that the pools want together."""
        return sum(pool.wanted for pool in self._pools.values())

    @property
    def names(self) -> list[str]:
        """Of the pools, those that are leaving included."""
        return list(self._pools)

    def announce(self) -> None:
        """Say within which bounds it scales; every counter begins at 0, or Prometheus would not see its first step."""
        for pool in self._pools.values():
            self._announce(pool)

    def replace(self, specs: Sequence[PoolSpec]) -> None:
        """The catalogue has changed. A pool whose model is gone stays while its workers run what waits."""
        for spec in specs:
            pool = self._pools.setdefault(spec.name, Pool(spec))
            pool.spec, pool.leaving = spec, False
            self._announce(pool)
        for name in self._pools.keys() - {spec.name for spec in specs}:
            self._pools[name].leaving = True

    def take_in(self, snapshot: Snapshot, at: float) -> None:
        """Note who has registered, and how fast jobs come and go."""
        for start in self._fleet.observe(snapshot.workers, at):
            self.metrics.startup.labels(start.pool).observe(start.seconds)
            if start.pool in self._pools:
                pool = self._pools[start.pool]
                pool.measured = pool.measured.started(start.seconds, start.from_spare)
        for pool in self._pools.values():
            part = snapshot.of(pool.name)
            pool.rates.update(part.totals, part.queued + part.running > 0, at)

    def scale(self, snapshot: Snapshot, at: float) -> None:
        """Decide for each pool, share the room out, and tell the fleet."""
        roster = self._fleet.roster()
        decisions = {pool.name: pool.decide(snapshot, roster, at) for pool in self._pools.values()}
        grants = self._share(decisions, at)
        changes = {name: grant.workers - self._pools[name].load.workers for name, grant in grants.items()}
        # Who gives way goes first: the room is free for another one only when he has gone.
        for name in sorted(changes, key=lambda name: changes[name]):
            self._act(self._pools[name], decisions[name], grants[name], changes[name], at)
        there = {worker.model for worker in self._fleet.roster()}
        self._pools = {name: pool for name, pool in self._pools.items() if not pool.leaving or name in there}

    def recall(self, kept: Mapping[str, Mapping[str, float]]) -> None:
        """Go on from what an earlier scaler measured of each pool."""
        for name in kept.keys() & self._pools.keys():
            self._pools[name].recall(Measured.of(kept[name]))

    def measured(self) -> dict[str, dict[str, float]]:
        """What has been measured of each pool."""
        return {pool.name: asdict(pool.measured) for pool in self._pools.values()}

    def hold(self) -> None:
        """Nothing can be seen, so nothing moves, and the watch begins anew."""
        for pool in self._pools.values():
            pool.forget()
            self.metrics.decisions.labels(pool.name, "hold", Reason.HELD_REDIS_DOWN).inc()

    def withdraw(self) -> None:
        """Another scaler decides from now on, and says how many there are."""
        for pool in self._pools.values():
            pool.forget()
        self.metrics.workers.clear()
        self.metrics.wanted.clear()

    def drain_rates(self) -> dict[str, float]:
        """Jobs ended per second, by pool."""
        return {pool.name: pool.rates.drain.per_second for pool in self._pools.values()}

    def record(self, now: float, at: float, trouble: str = "") -> FleetRecord:
        """What there is to say of all of it.

        Args:
            now: wall time.
            trouble: that no pool has, said where none of them has one.
        """
        pools = [pool.record(self._fleet.trouble(pool.name), at) for pool in self._pools.values()]
        waits = [seconds for pool in pools if (seconds := self._fleet.retry_in(pool.name, at)) is not None]
        starting = [worker for worker in self._fleet.roster() if worker.state == "starting"]
        return FleetRecord(
            min_workers=sum(pool.min_workers for pool in pools), max_workers=self._most(), wanted=self.wanted,
            starting=[worker.name for worker in starting],
            waits={worker.name: worker.trouble for worker in starting if worker.trouble},
            trouble=next((pool.trouble for pool in pools if pool.trouble), trouble),
            retry_at=now + min(waits) if waits else None, pools=pools,
        )  # fmt: skip

    def export(self, others: Sequence[WorkerRecord]) -> None:
        """Set the gauges.

        Args:
            others: workers that somebody else started.
        """
        workers = [*self._fleet.roster(), *others]
        for pool in self._pools.values():
            states = [worker.state for worker in workers if worker.model == pool.name]
            for state in STATES:
                self.metrics.workers.labels(pool.name, state).set(states.count(state))
            self.metrics.wanted.labels(pool.name).set(pool.wanted)
            self.metrics.tell_outlook(pool.name, pool.outlook.arrivals, pool.outlook.expected, pool.outlook.need)
            self.metrics.service.labels(pool.name).set(pool.measured.service_seconds)

    def _announce(self, pool: Pool) -> None:
        least, most = pool.spec.limits.min_workers, pool.spec.limits.max_workers
        span = f"{most}" if least == most else f"{least} to {most}"
        log.info("Keeping %s worker%s of %s.", span, "" if most == 1 else "s", pool.name)
        for action, reasons in OUTCOMES.items():
            for reason in reasons:
                self.metrics.decisions.labels(pool.name, action, reason)

    def _share(self, decisions: Mapping[str, Decision], at: float) -> dict[str, Grant]:
        grants: dict[str, Grant] = {}
        for resource, room in self._rooms.items():
            pools = [pool for pool in self._pools.values() if pool.spec.resource == resource]
            held_back = {pool.name: self._fleet.retry_in(pool.name, at) is not None for pool in pools}
            claimants = [
                pool.claimant(decisions[pool.name], self._least_stay_seconds, held_back[pool.name]) for pool in pools
            ]
            done = allocate(claimants, {pool.name: pool.tenure for pool in pools}, room, at)
            for pool in pools:
                pool.tenure = done.tenures[pool.name]
            grants |= done.grants
        return grants

    def _act(self, pool: Pool, decision: Decision, grant: Grant, asked: int, at: float) -> None:
        change = asked
        if asked > 0:
            change = self._fleet.spawn(asked, pool.name, at)
        elif asked < 0:
            members = [worker for worker in self._fleet.roster() if worker.model == pool.name]
            self._fleet.retire(choose_retirees(members, -asked), at)
        reason = self._reason(pool, decision, grant, asked, change)
        pool.note(decision, reason, grant)
        self._tell(pool, reason, change)
        pool.started(max(0, change), at)

    def _reason(self, pool: Pool, decision: Decision, grant: Grant, asked: int, change: int) -> str:
        if change > 0 or decision.workers <= pool.load.workers:
            return decision.reason if change > 0 or not grant.share else grant.share
        if grant.share and not asked:
            return grant.share
        return Reason.HELD_BACKOFF if self._fleet.backs_off(pool.name) else Reason.HELD_DRAINING

    def _tell(self, pool: Pool, reason: str, change: int) -> None:
        action = "up" if change > 0 else "down" if change < 0 else "hold"
        self.metrics.decisions.labels(pool.name, action, reason).inc()
        if change:
            load = pool.load
            log.info(
                "%s: %d → %d workers (%s): %d queued, %d running, oldest %.1f s, %.2f jobs/s in, %.2f out.",
                pool.name, load.workers, load.workers + change, reason, load.queued, load.running,
                load.oldest_age_seconds, pool.rates.arrivals.per_second, pool.rates.drain.per_second,
            )  # fmt: skip

    def _most(self) -> int:
        """Workers of all pools together, at most."""
        units = dict.fromkeys(self._rooms, 0)
        elsewhere = 0
        for pool in self._pools.values():
            if pool.spec.units:
                units[pool.spec.resource] += pool.spec.limits.max_workers * pool.spec.units
            else:
                elsewhere += pool.spec.limits.max_workers
        return elsewhere + sum(min(units[resource], room) for resource, room in self._rooms.items())
