"""The worker processes of this machine: starts them, tells them to go, and sees them end."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptq.queue.observe import WorkerRecord
from promptq.runtime.programs import command
from scaler.backoff import Backoff, is_stable
from scaler.fleets.base import Exit, FleetCapabilities
from scaler.fleets.child import Child
from scaler.fleets.gpus import Gpus, place
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
        environment: what every worker gets; name and GPU are added.
        drain_seconds: the time a retired worker takes for its rows; it is killed 5 s later.
        start_timeout_seconds: a worker not registered by then is killed.
        spare_command: starts a worker that waits for its assignment; empty: none is kept.
    """

    max_workers: int
    environment: dict[str, str]
    drain_seconds: float = 30
    start_timeout_seconds: float = 600
    command: Sequence[str] = WORKER_COMMAND
    spare_command: Sequence[str] = ()


class LocalFleet:
    """Worker processes of this machine; a `Fleet`. Call from the main thread.

    Attributes:
        trouble: why workers do not start, with exit code and last words; empty once one has registered since, or, where
            an engine broke, once a worker has proved stable.
    """

    def __init__(self, settings: LocalFleetSettings, gpus: Gpus | None = None) -> None:
        self.settings = settings
        self.capabilities = FleetCapabilities(sees_exits=True, prepares=bool(settings.spare_command))
        self.trouble = ""
        self._trouble_lasts = False
        self._gpus = gpus
        self._children: dict[str, Child] = {}
        self._backoff = Backoff()
        self._warm_spare = WarmSpare(settings.spare_command, settings.environment)

    @property
    def backs_off(self) -> bool:
        """Whether a crash keeps workers from starting as wanted."""
        return self._backoff.failures > 0

    def retry_in(self, now: float) -> float | None:
        """Seconds until the next try after a crash, or None when nothing waits for it."""
        return self._backoff.retry_in(now)

    def spawn(self, count: int, now: float) -> int:
        """Start up to `count` workers: fewer while draining ones fill the machine, or after crashes. Tells how many."""
        room = min(count, self.settings.max_workers - len(self._children))
        allowed = self._backoff.room(len(self._in_state("starting")), now)
        started = max(0, room if allowed is None else min(room, allowed))
        for _ in range(started):
            self._spawn_one(now)
        return started

    def prepare(self, wanted: int, now: float) -> None:
        """Keep one warm spare, where its imports take nothing from workers that start. It counts nowhere."""
        if wants_spare([child.state for child in self._children.values()], wanted, self.backs_off):
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

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[float]:
        """Take in who is registered; kills who never came, or went silent. Tells how long each new one took."""
        records = {record.name: record for record in registered}
        fresh = []
        for child in self._children.values():
            child.record = records.get(child.name, child.record)
            if child.record and child.registered_at is None:
                child.registered_at = now
                fresh.append(now - child.spawned_at)
                self.trouble = self.trouble if self._trouble_lasts else ""
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
            replace(child.record or WorkerRecord(child.name, "starting", child.process.pid), state=child.state)
            for child in self._children.values()
        ]

    def _in_state(self, state: str) -> list[Child]:
        return [child for child in self._children.values() if child.state == state]

    def _spawn_one(self, now: float) -> None:
        name = f"worker-{uuid.uuid4().hex[:8]}"
        gpu = place(self._gpus.read(), [child.gpu for child in self._children.values()]) if self._gpus else None
        own = {"PROMPTQ_WORKER_NAME": name} | ({"CUDA_VISIBLE_DEVICES": gpu.uuid} if gpu else {})
        placed = gpu.uuid if gpu else ""
        spare = self._warm_spare.take(name, own, placed, now)
        self._children[name] = spare or Child(name, self.settings.command, self.settings.environment | own, now, placed)
        where, how = f" on GPU {gpu.index}" if gpu else "", " from the spare" if spare else ""
        log.info("Started %s%s%s.", name, where, how)

    def _judge(self, child: Child, end: Exit, now: float) -> None:
        if end.reason == "retired":
            log.info("%s has ended (retired).", end.name)
            return
        log.warning("%s", end)
        # A worker that ran for long may end suddenly; one whose engine broke says that the next one's may too.
        breaks = end.reason == "engine_broken"
        if end.reason == "drain_timeout" or (self._is_stable(child, now) and not breaks):
            return
        self._trouble_lasts = breaks
        self.trouble = str(end)
        self._backoff.fail(now)

    def _is_stable(self, child: Child, now: float) -> bool:
        registered_seconds = None if child.registered_at is None else now - child.registered_at
        return is_stable(registered_seconds, child.record.jobs_finished if child.record else 0)

    def _check(self, child: Child, is_registered: bool, now: float) -> None:
        if child.deadline is not None:
            return
        if self._is_stable(child, now):
            self._backoff.proved(child.spawned_at)
            if self._trouble_lasts and not self._backoff.failures:
                self.trouble, self._trouble_lasts = "", False
        if child.registered_at is None and now - child.awaited_since >= self.settings.start_timeout_seconds:
            child.kill("start_timeout")
        if is_registered or child.registered_at is None:
            child.missing_since = None
            return
        child.missing_since = child.missing_since or now
        if now - child.missing_since >= UNRESPONSIVE_SECONDS:
            child.kill("unresponsive")
