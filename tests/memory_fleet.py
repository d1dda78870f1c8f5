"""A fleet in memory, for the loop's unit tests; it passes the contract suite that every fleet passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptq.queue.observe import WorkerRecord
from scaler.backoff import is_stable
from scaler.fleets.base import Exit, FleetCapabilities, Start
from scaler.fleets.starts import StartsByPool

POOL = "model"
"""The one model of most tests."""
START_TIMEOUT_SECONDS = 60.0
DRAIN_SECONDS = 30.0
UNRESPONSIVE_SECONDS = 30.0


@dataclass(slots=True)
class _Worker:
    record: WorkerRecord
    spawned_at: float
    awaited_since: float
    registered_at: float | None = None
    missing_since: float | None = None
    deadline: float | None = None
    end: Exit | None = None

    def is_stable(self, now: float) -> bool:
        since = self.registered_at
        return is_stable(None if since is None else now - since, self.record.jobs_finished)


class MemoryFleet(StartsByPool):
    """Workers that are entries of a dictionary.

    Args:
        most: how many there may be, those that drain included.
        crashes: a worker ends as soon as it has started.
        drains: a retired worker ends at once; otherwise when the test says so, or its time is over.
        sees_exits, outlives: as FleetCapabilities.
    """

    def __init__(
        self, most: int = 3, crashes: bool = False, drains: bool = True, sees_exits: bool = True,
        outlives: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.capabilities = FleetCapabilities(sees_exits=sees_exits, outlives=outlives)
        self.prepared: list[int] = []
        self.paused: list[float] = []
        self.taken_over: list[float] = []
        self.crashes = crashes
        self._most = most
        self._drains = drains
        self._workers: dict[str, _Worker] = {}
        self._spawned = 0

    def take_over(self, now: float) -> None:
        self.taken_over.append(now)

    def roster(self) -> list[WorkerRecord]:
        return [worker.record for worker in self._workers.values()]

    def spawn(self, count: int, pool: str, now: float) -> int:
        members = [worker for worker in self._workers.values() if worker.record.model == pool]
        starting = sum(worker.record.state == "starting" for worker in members)
        started = self._allowed(min(count, self._most - len(self._workers)), pool, starting, now)
        for _ in range(started):
            name = f"memory-{self._spawned}"
            self._spawned += 1
            self._workers[name] = _Worker(WorkerRecord(name, "starting", model=pool), now, now)
            if self.crashes:
                self.die(name, "crashed", 1)
        return started

    def prepare(self, wanted: int, now: float) -> None:
        self.prepared.append(wanted)

    def retire(self, names: Sequence[str], now: float) -> None:
        for worker in (self._workers[name] for name in names if name in self._workers):
            if worker.deadline is None:
                worker.deadline = now + DRAIN_SECONDS
                worker.record = replace(worker.record, state="draining")
                if self._drains:
                    self.die(worker.record.name, "retired", 0)

    def retire_all(self, now: float) -> None:
        self.retire(list(self._workers), now)

    def kill(self) -> None:
        for name in self._workers:
            self.die(name, "killed", -9)

    def die(self, name: str, reason: str = "killed", code: int = -9) -> None:
        """The worker ends; `poll` tells it."""
        self._workers[name].end = self._workers[name].end or Exit(name, reason, code, "")

    def poll(self, now: float) -> list[Exit]:
        for name, worker in self._workers.items():
            if worker.deadline is not None and now >= worker.deadline:
                self.die(name, "drain_timeout")
        ended = [(worker, worker.end) for worker in self._workers.values() if worker.end]
        for worker, end in ended:
            del self._workers[end.name]
            if end.reason != "retired":
                self._starts[worker.record.model].ended(end, worker.is_stable(now), now)
        return [end for _, end in ended]

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[Start]:
        records = {record.name: record for record in registered}
        fresh = []
        for name, worker in self._workers.items():
            if (record := records.get(name)) is not None:
                pool = worker.record.model
                state = record.state if worker.deadline is None else "draining"
                worker.record = replace(record, state=state, model=pool)
                if worker.registered_at is None:
                    worker.registered_at = now
                    fresh.append(Start(pool, now - worker.spawned_at))
                    self._starts[pool].registered()
            self._check(worker, record is not None, now)
        return fresh

    def pause_clocks(self, now: float) -> None:
        self.paused.append(now)
        for worker in self._workers.values():
            worker.awaited_since, worker.missing_since = now, None

    def _check(self, worker: _Worker, is_registered: bool, now: float) -> None:
        if worker.is_stable(now):
            self._starts[worker.record.model].proved(worker.spawned_at)
        if worker.registered_at is None and now - worker.awaited_since >= START_TIMEOUT_SECONDS:
            self.die(worker.record.name, "start_timeout")
        if is_registered or worker.registered_at is None:
            worker.missing_since = None
            return
        worker.missing_since = worker.missing_since or now
        if now - worker.missing_since >= UNRESPONSIVE_SECONDS:
            self.die(worker.record.name, "unresponsive")
