"""One model's workers, as the scaler's loop sees them: what its policy remembers, and what it was granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from promptq.queue.observe import PoolRecord, Snapshot, WorkerRecord
from scaler.allocation import Claimant, Grant, Share, Tenure, stay_seconds
from scaler.policy import Decision, History, Limits, Load, Reason, decide
from scaler.rates import Rates

FIRST_SWAP_SECONDS = 10.0
"""What a start is taken to cost until one has been seen."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool is, from its model's entry.

    Attributes:
        resource: what its workers share with others: cpu or gpu.
        units: of that, for each worker; 0: they take none.
        follows_slots: whether a worker is for as many jobs as it has slots, once one has said how many these are.
    """

    name: str
    limits: Limits
    resource: str = "cpu"
    units: int = 1
    follows_slots: bool = False


class Pool:
    """A pool and its state. Times are steady seconds.

    Attributes:
        leaving: its model is not in the catalogue any more: what waits is still run by the workers there are.
        tenure: for the allocation.
        swap_seconds: how long its last worker took to start.
        others: workers of the model that somebody else started.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.leaving = False
        self.rates = Rates()
        self.tenure = Tenure()
        self.swap_seconds = FIRST_SWAP_SECONDS
        self.load = Load(0, 0, 0.0, 0)
        self.reason: str = Reason.STEADY
        self.wanted = 0
        self.others = 0
        self.waits_for: tuple[str, ...] = ()
        self._history = History()
        self._slots = 0.0

    @property
    def name(self) -> str:
        """Of the model."""
        return self.spec.name

    def decide(self, snapshot: Snapshot, roster: Sequence[WorkerRecord], at: float) -> Decision:
        """How many workers its policy wants, whatever others need."""
        part = snapshot.of(self.name)
        workers = [worker for worker in roster if worker.model == self.name]
        others = others_of(part.workers, roster)
        limits = self._limits(workers)
        self.load = load_of(part, workers, self._capacity(others, limits))
        self.others = len(others)
        decision = decide(self.load, self._history, replace(limits, min_workers=self._least), at)
        if self.leaving:
            decision = Decision(self.load.workers if self.load.demand else 0, Reason.LEAVING, decision.history)
        self._history = decision.history
        return decision

    @property
    def _least(self) -> int:
        """Of its own workers; others' count."""
        return max(0, self.spec.limits.min_workers - self.others)

    def _capacity(self, others: Sequence[WorkerRecord], limits: Limits) -> float:
        """How many of its own workers they are worth."""
        if self.spec.follows_slots:
            return sum(worker.slots for worker in others) / limits.target_jobs_per_worker
        return float(len(others))

    def _limits(self, workers: Sequence[WorkerRecord]) -> Limits:
        """As the spec has them, for workers with as many slots as the last ones had."""
        if slots := [worker.slots for worker in workers if worker.slots]:
            self._slots = sum(slots) / len(slots)
        limits = self.spec.limits
        return (
            replace(limits, target_jobs_per_worker=self._slots) if self.spec.follows_slots and self._slots else limits
        )

    def forget(self) -> None:
        """Nothing can be seen: what was not seen cannot be said to have lasted."""
        self._history = History()

    def claimant(self, decision: Decision, least_stay: float, held_back: bool) -> Claimant:
        """Itself, as it is compared with others."""
        stay = stay_seconds(least_stay, self.swap_seconds)
        least = 0 if self.leaving else self._least
        return Claimant(
            self.name, decision.workers, self.load.workers, self.load.starting, self.spec.units, least,
            self.load.demand > 0, held_back, stay,
        )  # fmt: skip

    def note(self, decision: Decision, reason: str, grant: Grant) -> None:
        """Keep what was decided, for those who ask."""
        self.wanted, self.reason, self.waits_for = decision.workers, reason, grant.holders

    def record(self, trouble: str) -> PoolRecord:
        """Itself, as `/v1/workers` shows it."""
        limits = self.spec.limits
        return PoolRecord(
            self.name, limits.min_workers, limits.max_workers, self.wanted, self.load.workers, self.reason,
            _waiting(self.reason, self.spec, self.waits_for), trouble, round(self.swap_seconds, 3), self.others,
        )  # fmt: skip


def others_of(registered: Sequence[WorkerRecord], roster: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    """Who takes jobs and is not in the fleet's roster: workers of hosts that look after their own."""
    ours = {worker.name for worker in roster}
    able = (worker for worker in registered if worker.state != "draining" and not worker.trouble)
    return [worker for worker in able if worker.name not in ours]


def load_of(snapshot: Snapshot, roster: Sequence[WorkerRecord], others: float = 0.0) -> Load:
    """What there is to do and who is there to do it; draining workers are not."""
    states = [worker.state for worker in roster]
    return Load(
        queued=snapshot.queued, running=snapshot.running, oldest_age_seconds=snapshot.oldest_age_seconds,
        workers=len(states) - states.count("draining"), starting=states.count("starting"), others=others,
    )  # fmt: skip


def stranded(counts: Mapping[str, int]) -> str:
    """What to say of jobs whose model no file lists."""
    return "; ".join(
        f"{jobs} jobs of the model {name} wait, which is not in the catalogue" for name, jobs in counts.items()
    )


def _waiting(reason: str, spec: PoolSpec, holders: Sequence[str]) -> str:
    if reason not in set(Share):
        return ""
    what = "a GPU" if spec.resource == "gpu" else "room"
    return f"waits for {what} that {', '.join(holders) or 'nobody'} holds"
