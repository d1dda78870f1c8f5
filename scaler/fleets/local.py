"""The worker processes of this machine: starts them, tells them to go, and sees them end."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from promptq.queue.observe import WorkerRecord
from promptq.runtime import failpoints
from promptq.runtime.programs import command
from scaler.backoff import is_stable
from scaler.fleets.base import Exit, FleetCapabilities, Start
from scaler.fleets.child import Child
from scaler.fleets.gpus import Gpus, place
from scaler.fleets.launch import Launch
from scaler.fleets.starts import StartsByPool
from scaler.fleets.warm_spare import WarmSpare, wants_spare

log = logging.getLogger(__name__)

UNRESPONSIVE_SECONDS = 30.0
KILL_GRACE_SECONDS = 5.0
WORKER_COMMAND = tuple(command("gpu_worker"))
SPARE_COMMAND = (*WORKER_COMMAND, "--spare")


@dataclass(frozen=True, slots=True)
class LocalFleetSettings:
    """How workers are run. Durations are in seconds.

    Attributes:
        max_workers: units of room, of each resource that `rooms` does not name.
        environment: what every worker gets; name and GPU are added.
        pools: how those of a pool are started that differ from the usual.
        drain_seconds: the time a retired worker takes for its rows; it is killed 5 s later.
        start_timeout_seconds: a worker not registered by then is killed.
        spare_command: starts a worker that waits for its assignment; empty: none is kept.
        spare_environment: in what the spare's differs.
    """

    max_workers: int
    environment: dict[str, str]
    drain_seconds: float = 30
    start_timeout_seconds: float = 600
    command: Sequence[str] = WORKER_COMMAND
    spare_command: Sequence[str] = ()
    spare_environment: Mapping[str, str] = field(default_factory=dict)
    rooms: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, Launch] = field(default_factory=dict)


class LocalFleet(StartsByPool):
    """Worker processes of this machine; a `Fleet`. Call from the main thread."""

    def __init__(self, settings: LocalFleetSettings, gpus: Gpus | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.capabilities = FleetCapabilities(sees_exits=True, prepares=bool(settings.spare_command))
        self._gpus = gpus
        self._children: dict[str, Child] = {}
        self._warm_spare = WarmSpare(settings.spare_command, settings.environment, settings.spare_environment)

    def take_over(self, _now: float) -> None:
        """Nothing is found: workers of this machine go with the scaler that started them."""

    def spawn(self, count: int, pool: str, now: float) -> int:
        """Start up to `count` workers: fewer while draining ones fill the machine, or after crashes. Tells how many."""
        launch = self._launch(pool)
        room = min(count, self._room(launch.resource) // launch.units) if launch.units else count
        starting = sum(child.pool == pool and child.state == "starting" for child in self._children.values())
        started = self._allowed(room, pool, starting, now)
        for _ in range(started):
            self._spawn_one(pool, launch, now)
        return started

    def prepare(self, wanted: int, now: float) -> None:
        """Keep one warm spare, where its imports take nothing from workers that start. It counts nowhere."""
        backs_off = any(starts.backs_off for starts in self._starts.values())
        if wants_spare([child.state for child in self._children.values()], wanted, backs_off):
            self._warm_spare.refill(now)

    def retire(self, names: Sequence[str], now: float) -> None:
        """SIGTERM: they claim nothing more, finish what they run, and end. Those that have ended are passed over."""
        for child in (self._children[name] for name in names if name in self._children):
            child.retire(now + self.settings.drain_seconds + KILL_GRACE_SECONDS)

    def retire_all(self, now: float) -> None:
        """Retire every worker; the spare ends at once."""
        self._warm_spare.end()
        self.retire(list(self._children), now)

    def kill(self) -> None:
        """SIGKILL to every worker and the spare. Safe in a signal handler."""
        self._warm_spare.kill()
        for child in list(self._children.values()):
            child.kill("killed")

    def poll(self, now: float) -> list[Exit]:
        """Workers that have ended since the last call; kills those whose time to drain is over."""
        for child in self._children.values():
            if child.deadline is not None and now >= child.deadline:
                child.kill("drain_timeout")
        self._warm_spare.poll(now)
        exits = [(child, end) for child in self._children.values() if (end := child.ended())]
        for child, end in exits:
            del self._children[child.name]
            self._judge(child, end, now)
        return [end for _, end in exits]

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[Start]:
        """Take in who is registered; kills who never came, or went silent. Tells who is new."""
        records = {record.name: record for record in registered}
        fresh = []
        for child in self._children.values():
            child.record = records.get(child.name, child.record)
            if child.record and child.registered_at is None:
                child.registered_at = now
                fresh.append(Start(child.pool, now - child.spawned_at, child.from_spare))
                self._starts[child.pool].registered()
            self._check(child, child.name in records, now)
        return fresh

    def pause_clocks(self, now: float) -> None:
        """Redis cannot be read, so nobody can register: this time counts against no worker."""
        for child in self._children.values():
            child.missing_since = None
            if child.registered_at is None:
                child.awaited_since = now

    def roster(self) -> list[WorkerRecord]:
        """Every worker process with its present state: starting, idle, busy or draining."""
        return [
            replace(
                child.record or WorkerRecord(child.name, "starting", child.process.pid),
                state=child.state, model=child.pool,
            )
            for child in self._children.values()
        ]  # fmt: skip

    def _launch(self, pool: str) -> Launch:
        return self.settings.pools.get(pool, Launch())

    def _room(self, resource: str) -> int:
        """Units that nobody takes; who drains takes his still."""
        launches = [self._launch(child.pool) for child in self._children.values()]
        taken = sum(launch.units for launch in launches if launch.resource == resource)
        return max(0, self.settings.rooms.get(resource, self.settings.max_workers) - taken)

    def _spawn_one(self, pool: str, launch: Launch, now: float) -> None:
        name = f"worker-{uuid.uuid4().hex[:8]}"
        used = [gpu for child in self._children.values() for gpu in child.gpus]
        gpus = place(self._gpus.read(), used, launch.gpus) if self._gpus and launch.gpus else []
        placed = [gpu.uuid for gpu in gpus]
        own = dict(launch.environment) | {"PROMPTQ_WORKER_NAME": name}
        own |= {"CUDA_VISIBLE_DEVICES": ",".join(placed)} if placed else {}
        spare = self._warm_spare.take(name, own, placed, now) if launch.takes_spare else None
        command = launch.command or self.settings.command
        child = spare or Child(name, command, self.settings.environment | own, now, placed)
        failpoints.hit("scaler.spawned")
        child.pool, child.from_spare = pool, spare is not None
        self._children[name] = child
        where = f" on GPU {', '.join(gpu.label for gpu in gpus)}" if gpus else ""
        log.info("Started %s of %s%s%s.", name, pool, where, " from the spare" if spare else "")

    def _judge(self, child: Child, end: Exit, now: float) -> None:
        if end.reason == "retired":
            log.info("%s has ended (retired).", end.name)
            return
        log.warning("%s", end)
        self._starts[child.pool].ended(end, self._is_stable(child, now), now)

    def _is_stable(self, child: Child, now: float) -> bool:
        registered_seconds = None if child.registered_at is None else now - child.registered_at
        return is_stable(registered_seconds, child.record.jobs_finished if child.record else 0)

    def _check(self, child: Child, is_registered: bool, now: float) -> None:
        if child.record and child.record.state == "draining" and child.deadline is None:
            # Somebody asked it through Redis; it is given the same time.
            child.deadline = now + self.settings.drain_seconds + KILL_GRACE_SECONDS
        if child.deadline is not None:
            return
        if self._is_stable(child, now):
            self._starts[child.pool].proved(child.spawned_at)
        if child.registered_at is None and now - child.awaited_since >= self.settings.start_timeout_seconds:
            child.kill("start_timeout")
        if is_registered or child.registered_at is None:
            child.missing_since = None
            return
        child.missing_since = child.missing_since or now
        if now - child.missing_since >= UNRESPONSIVE_SECONDS:
            child.kill("unresponsive")
