"""The workers on a Ray cluster: asks for them, tells them to go, and sees them and their nodes end."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import Exit, FleetCapabilities, Start
from scaler.fleets.launch import Launch
from scaler.fleets.local import KILL_GRACE_SECONDS, UNRESPONSIVE_SECONDS
from scaler.fleets.ray.evidence import is_gone
from scaler.fleets.ray.member import Member
from scaler.fleets.ray.order import Needs, Order
from scaler.fleets.ray.pending import why_pending
from scaler.fleets.ray.protocol import Cluster, Died
from scaler.fleets.starts import StartsByPool

log = logging.getLogger(__name__)

GivesOrder = Callable[[str, Launch], Order]
"""What a node is told to start: by the worker's name, and how its pool's workers are started."""


@dataclass(frozen=True, slots=True)
class RayFleetSettings:
    """How workers are run. Durations are in seconds.

    Attributes:
        rooms: units of room, by resource: as many as the settings let there be.
        drain_seconds: the time a retired worker takes for its rows; it is killed 5 s later.
        start_timeout_seconds: a worker that has had a node for so long and has not registered is killed.
    """

    rooms: Mapping[str, int]
    pools: Mapping[str, Launch] = field(default_factory=dict)
    drain_seconds: float = 30
    start_timeout_seconds: float = 600


class RayFleet(StartsByPool):
    """Workers that are actors; a `Fleet`. A worker that waits for a node is starting, and its time does not run. That
    is no trouble, but the roster says so.

    Args:
        gone: whether a worker that listened at this address has ended for certain.
    """

    def __init__(
        self, cluster: Cluster, settings: RayFleetSettings, order: GivesOrder, gone: Callable[[str], bool] = is_gone
    ) -> None:
        super().__init__()
        self.capabilities = FleetCapabilities(sees_exits=True, outlives=True)
        self._cluster = cluster
        self._settings = settings
        self._order = order
        self._gone = gone
        self._members: dict[str, Member] = {}

    def take_over(self, now: float) -> None:
        """Find the workers of earlier leaders by their actors' names."""
        self._members = {name: Member(name, pool, now, now) for name, pool in self._cluster.found().items()}
        if self._members:
            log.info("Took over %d workers: %s.", len(self._members), ", ".join(self._members))

    def roster(self) -> list[WorkerRecord]:
        """Every worker; of one that has no node yet `trouble` says what it waits for."""
        return [member.shown() for member in self._members.values()]

    def spawn(self, count: int, pool: str, now: float) -> int:
        """Ask Ray for up to `count` actors. Tells how many: what Ray cannot place yet is asked for all the same, for
        that is what makes its autoscaler add nodes."""
        launch = self._launch(pool)
        room = min(count, self._room(launch.resource) // launch.units) if launch.units else count
        starting = sum(member.pool == pool and member.state == "starting" for member in self._members.values())
        started = self._allowed(room, pool, starting, now)
        for _ in range(started):
            name = f"worker-{uuid.uuid4().hex[:8]}"
            self._cluster.start(self._order(name, launch), pool, self._needs(launch))
            self._members[name] = Member(name, pool, now, now)
            log.info("Asked Ray for %s of %s.", name, pool)
        return started

    def prepare(self, wanted: int, now: float) -> None:
        """Nothing: what is kept ready on a cluster takes room there."""

    def retire(self, names: Sequence[str], now: float) -> None:
        """SIGTERM through the actor; who has no node yet ends at once."""
        for member in (self._members[name] for name in names if name in self._members):
            if member.deadline is not None:
                continue
            member.deadline = now + self._settings.drain_seconds + KILL_GRACE_SECONDS
            self._cluster.retire(member.name) if member.host else self._cluster.destroy(member.name)

    def retire_all(self, now: float) -> None:
        """See `Fleet`."""
        self.retire(list(self._members), now)

    def kill(self) -> None:
        """End every worker at once. The scaler never does: its workers outlive it."""
        for member in self._members.values():
            self._kill(member, "killed", member.spawned_at)

    def poll(self, now: float) -> list[Exit]:
        """Who has ended, and whose node has. Kills those whose time to drain is over."""
        self._place(now)
        for member in self._members.values():
            if member.deadline is not None and now >= member.deadline:
                self._kill(member, "drain_timeout", now)
            if member.killed_at is not None and now >= member.killed_at + KILL_GRACE_SECONDS:
                self._cluster.destroy(member.name)  # its node, or the actor itself, does not answer
        ends = [end for end in self._cluster.ends() if end.name in self._members]
        return [self._judge(self._members.pop(end.name), end, now) for end in ends]

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[Start]:
        """See `Fleet`."""
        records = {record.name: record for record in registered}
        fresh = []
        for member in self._members.values():
            member.record = records.get(member.name, member.record)
            if member.record and member.registered_at is None:
                member.registered_at = now
                fresh.append(Start(member.pool, now - member.spawned_at))
                self._starts[member.pool].registered()
            self._check(member, member.name in records, now)
        return fresh

    def pause_clocks(self, now: float) -> None:
        """See `Fleet`."""
        for member in self._members.values():
            member.missing_since = None
            if member.registered_at is None:
                member.awaited_since = now

    def _launch(self, pool: str) -> Launch:
        return self._settings.pools.get(pool, Launch())

    def _needs(self, launch: Launch) -> Needs:
        return Needs.of(launch.gpus, launch.resources)

    def _room(self, resource: str) -> int:
        """Units that nobody takes; who drains takes his still."""
        launches = [self._launch(member.pool) for member in self._members.values()]
        taken = sum(launch.units for launch in launches if launch.resource == resource)
        return max(0, self._settings.rooms.get(resource, 0) - taken)

    def _place(self, now: float) -> None:
        for name, host in self._cluster.places().items():
            if name in self._members:
                self._members[name].host, self._members[name].waits_for = host, ""
                self._members[name].awaited_since = now
                log.info("Ray has placed %s on %s.", name, host)
        if waiting := [member for member in self._members.values() if not member.host]:
            nodes, free = self._cluster.room()
            for member in waiting:
                member.awaited_since = now
                member.waits_for = why_pending(self._needs(self._launch(member.pool)), nodes, free)

    def _kill(self, member: Member, sentence: str, now: float) -> None:
        if member.sentence:
            return
        member.sentence, member.killed_at = sentence, now
        self._cluster.kill(member.name, sentence) if member.host else self._cluster.destroy(member.name)

    def _judge(self, member: Member, end: Exit | Died, now: float) -> Exit:
        known = end if isinstance(end, Exit) else self._lost(member, end)
        if known.reason == "retired":
            log.info("%s has ended (retired).", known.name)
        else:
            log.warning("%s", known)
            self._starts[member.pool].ended(known, member.is_stable(now), now)
        return known

    def _lost(self, member: Member, died: Died) -> Exit:
        """The actor is gone, and told nothing of its worker."""
        if not member.host and member.deadline is not None:
            return Exit(member.name, "retired")
        reason = member.sentence or ("node_lost" if member.host else "crashed")
        is_sure = not member.host or bool(member.record and self._gone(member.record.metrics_url))
        return Exit(member.name, reason, 1, died.words, is_sure)

    def _check(self, member: Member, is_registered: bool, now: float) -> None:
        if member.record and member.record.state == "draining" and member.deadline is None:
            # Told by somebody else: an earlier leader, or a person.
            member.deadline = now + self._settings.drain_seconds + KILL_GRACE_SECONDS
        if member.deadline is not None:
            return
        if member.is_stable(now):
            self._starts[member.pool].proved(member.spawned_at)
        if member.registered_at is None and now - member.awaited_since >= self._settings.start_timeout_seconds:
            self._kill(member, "start_timeout", now)
        if is_registered or member.registered_at is None:
            member.missing_since = None
            return
        member.missing_since = member.missing_since or now
        if now - member.missing_since >= UNRESPONSIVE_SECONDS:
            self._kill(member, "unresponsive", now)
