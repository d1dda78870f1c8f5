"""A fleet whose workers are entries in a dict, for tests of what stands in front of a fleet. It keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import Exit, FleetCapabilities


class MemoryFleet:
    """Workers start when `observe` first hears of them, and end when the test says so, or once they are told to."""

    capabilities = FleetCapabilities(sees_exits=True)
    trouble = ""
    backs_off = False

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.workers: dict[str, WorkerRecord] = {}
        self.spawned_at: dict[str, float] = {}
        self.ended: list[Exit] = []
        self.wanted = 0

    def retry_in(self, now: float) -> float | None:
        return None

    def roster(self) -> list[WorkerRecord]:
        return list(self.workers.values())

    def spawn(self, count: int, now: float) -> int:
        started = max(0, min(count, self.most - len(self.workers)))
        for _ in range(started):
            name = f"memory-{len(self.spawned_at)}"
            self.workers[name] = WorkerRecord(name, "starting")
            self.spawned_at[name] = now
        return started

    def retire(self, names: Sequence[str], now: float) -> None:
        for name in names:
            self.workers[name] = replace(self.workers[name], state="draining")

    def retire_all(self, now: float) -> None:
        self.retire(list(self.workers), now)

    def kill(self) -> None:
        for name in list(self.workers):
            self.die(name, "killed", -9)

    def die(self, name: str, reason: str = "crashed", code: int = 1) -> None:
        del self.workers[name]
        self.ended.append(Exit(name, reason, code))

    def poll(self, now: float) -> list[Exit]:
        for name in [name for name, worker in self.workers.items() if worker.state == "draining"]:
            self.die(name, "retired", 0)
        ended, self.ended = self.ended, []
        return ended

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[float]:
        records = {record.name: record for record in registered}
        fresh = [name for name, worker in self.workers.items() if worker.state == "starting" and name in records]
        for name, worker in self.workers.items():
            if name in records and worker.state != "draining":
                self.workers[name] = records[name]
        return [now - self.spawned_at[name] for name in fresh]

    def pause_clocks(self, now: float) -> None: ...

    def prepare(self, wanted: int, now: float) -> None:
        self.wanted = wanted
