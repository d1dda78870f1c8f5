"""A worker's loop on a bench: the real echo engine, claims and leases on fakeredis, a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry

from gpu_worker.batching import Batching
from gpu_worker.claim_conversion import Run
from gpu_worker.claim_io import ClaimIO
from gpu_worker.engines.base import Capabilities, EngineInfo, Event
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.leases import LeaseKeeper
from gpu_worker.preemption import NO_PREEMPTION, Preemption
from gpu_worker.presence import Presence
from gpu_worker.telemetry import Telemetry
from gpu_worker.verdicts import Verdicts
from gpu_worker.worker_loop import LoopLimits, LoopParts, WorkerLoop
from promptq.contract.job import Status
from promptq.contract.metrics import WorkerMetrics
from promptq.queue.records import Claim, Terms
from tests.fakes import TimedStore, submit
from tests.processes import wait_until


class Clock:
    """Steady seconds that the test moves; asked by the engine's sleep too, so that waiting is moving on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Said:
    """A registration that keeps what was said."""

    def __init__(self) -> None:
        self.beats: list[tuple[str, int]] = []
        self.troubles: list[str] = []
        self.is_asked_to_drain = False

    def beat(self, phase: str, busy_slots: int, trouble: str = "") -> bool:
        self.beats.append((phase, busy_slots))
        self.troubles.append(trouble)
        return True


class Heard:
    """A sink that keeps what it got, and fails where it is told to."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.fails = False
        self.kept = 0
        self.dropped_ids: list[str] = []
        self.given_up: list[str] = []

    def took(self, run: Run, event: Event) -> None:
        self.texts.setdefault(run.claim.id, []).append(event.text)
        if self.fails:
            raise OSError("the progress is not wanted")

    def dropped(self, run: Run) -> None:
        self.dropped_ids.append(run.claim.id)

    def give_up(self, claims: Sequence[Claim]) -> None:
        self.given_up += [claim.id for claim in claims]

    def keep(self) -> None:
        self.kept += 1
        if self.fails:
            raise OSError("the progress is not wanted")


class Forgetful(EchoEngine):
    """Cannot go on behind what an earlier run generated."""

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, capabilities=Capabilities(streaming=True))


class Bench:
    """A loop on the test's bench, with its parts in reach."""

    def __init__(
        self,
        store: TimedStore,
        slots: int = 4,
        drain: float = 30.0,
        pace: float = 10.0,
        engine: type[EchoEngine] = EchoEngine,
        preemption: Preemption = NO_PREEMPTION,
    ) -> None:
        self.store, self.clock, self.sink, self.said = store, Clock(), Heard(), Said()
        self.engine = engine(slots, pace, sleep=self.clock.sleep)
        self.registry = CollectorRegistry()
        telemetry = Telemetry(WorkerMetrics(self.registry), self.engine)
        batching = Batching("continuous", slots)
        self.claim_io = ClaimIO(store, "w", batching, telemetry, Terms(resumes="echo"), preemption, self.sink.give_up)
        presence, self.verdicts = Presence(self.said, self.engine), Verdicts()
        self.leases = LeaseKeeper(store, self.claim_io, presence.beat, self.verdicts.add)
        parts = LoopParts(self.claim_io, self.leases, presence, self.verdicts, telemetry, self.sink)
        self.loop = WorkerLoop(self.engine, parts, LoopLimits(600, drain, preemption), self.clock)
        for thread in (self.claim_io, self.leases):
            thread.start()

    def submit(self, prompt: str, **fields: object) -> str:
        job_id = submit(self.store, prompt, cache=False, **fields).job.id
        self.claim_io.wake()
        return job_id

    def until(self, *ids: str) -> list[Status]:
        """Rounds until these jobs have ended."""

        def ended() -> bool:
            self.loop.round(0.02)
            return all(self.store.get(job_id).status.is_terminal for job_id in ids)

        wait_until(ended, 10)
        return [self.store.get(job_id).status for job_id in ids]

    def until_running(self, rows: int) -> list[Claim]:
        wait_until(lambda: self.loop.round(0.02) or self.engine.live_rows() == rows, 10)
        return self.claim_io.held()

    def drain(self) -> None:
        """As a worker that is told to stop: a claim may be under way when claiming stops."""
        self.loop.drain()
        self.claim_io.close(5)
        self.claim_io.give_back(self.claim_io.stop_claiming())

    def close(self) -> None:
        self.claim_io.close(5)
        self.leases.close()
