"""One model's workers, as the scaler's loop sees them: what its policy remembers, and what it was granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from promptq.queue.observe import PoolRecord, Snapshot, WorkerRecord
from scaler.allocation import Claimant, Grant, Share, Tenure, stay_seconds
from scaler.forecast import Service
from scaler.load import Limits, Load
from scaler.measured import Measured
from scaler.policy import Decision, History, Outlook, decide
from scaler.rates import Rates, ended_jobs
from scaler.reasons import Reason, words

MOST_COMING = 64
"""Starting workers that are told one by one."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool is, from its model's entry.

    Attributes:
        resource: what its workers share with others: cpu or gpu.
        units: of that, for each worker; 0: they take none.
        follows_slots: whether a worker is for as many jobs as it registers slots, once one has.
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
        measured: what its workers have shown.
        others: workers of the model that somebody else started.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.leaving = False
        self.rates = Rates()
        self.tenure = Tenure()
        self.measured = Measured()
        self.load = Load(0, 0, 0.0, 0)
        self.reason: str = Reason.STEADY
        self.wanted = 0
        self.others = 0
        self.waits_for: tuple[str, ...] = ()
        self._starts: list[float] = []
        self._outlook = Outlook()
        self._queued: dict[str, int] = {}
        self._history = History()

    @property
    def name(self) -> str:
        """Of the model."""
        return self.spec.name

    def recall(self, measured: Measured) -> None:
        """Go on from what an earlier scaler measured."""
        self.measured = measured
        self._history = History(service=Service.of(measured.service_seconds))

    def decide(self, snapshot: Snapshot, roster: Sequence[WorkerRecord], at: float) -> Decision:
        """How many workers its policy wants, whatever others need."""
        workers = [worker for worker in roster if worker.model == self.name]
        self.measured = self.measured.registered([worker.slots for worker in workers])
        own = snapshot.of(self.name)
        others, limits = others_of(own.workers, roster), self._limits()
        self.others = len(others)
        self._queued = {queue.name: queue.queued for queue in own.queues}
        self.load = load_of(own, workers, self.measured.next_start_seconds, self._capacity(others, limits))
        self._starts = self._starts[max(0, len(self._starts) - self.load.starting) :]
        self.load = replace(self.load, coming_seconds=self._coming_seconds(at))
        decision = decide(self.load, self._history, replace(limits, min_workers=self._least), at)
        if self.leaving:
            jobs = self.load.jobs
            decision = replace(decision, workers=self.load.workers if jobs else 0, reason=Reason.LEAVING)
        self._history, self._outlook = decision.history, decision.outlook
        self.measured = replace(self.measured, service_seconds=decision.outlook.service_seconds or 0.0)
        return decision

    @property
    def _least(self) -> int:
        """Of its own workers; others' count."""
        return max(0, self.spec.limits.min_workers - self.others)

    def _capacity(self, others: Sequence[WorkerRecord], limits: Limits) -> float:
        """How many of its own workers they are worth."""
        if self.spec.follows_slots:
            return sum(worker.slots for worker in others) / limits.slots
        return float(len(others))

    def _limits(self) -> Limits:
        """As the spec has them, for workers with as many slots as the last ones had."""
        limits, slots = self.spec.limits, self.measured.slots
        return replace(limits, slots=slots) if self.spec.follows_slots and slots else limits

    def forget(self) -> None:
        """Nothing can be seen: what was not seen cannot be said to have lasted. How long jobs take is still so."""
        self._history = History(service=self._history.service)
        self._starts = []

    def claimant(self, decision: Decision, least_stay: float, held_back: bool) -> Claimant:
        """Itself, as it is compared with others."""
        stay = stay_seconds(least_stay, self.measured.next_start_seconds)
        least = 0 if self.leaving else self._least
        return Claimant(
            self.name, decision.workers, self.load.workers, self.load.starting, self.spec.units, least,
            self.load.jobs > 0, held_back, stay,
        )  # fmt: skip

    def note(self, decision: Decision, reason: str, grant: Grant) -> None:
        """Keep what was decided, for those who ask."""
        self.wanted, self.reason, self.waits_for = decision.workers, reason, grant.holders

    def started(self, count: int, at: float) -> None:
        """So many workers more are starting."""
        self._starts += [at] * count
        self.load = replace(self.load, workers=self.load.workers + count, starting=self.load.starting + count)

    @property
    def outlook(self) -> Outlook:
        """What the last decision expected."""
        return self._outlook

    def record(self, trouble: str, at: float) -> PoolRecord:
        """Itself, as `/v1/workers` shows it."""
        limits, seen, outlook = self.spec.limits, self.measured, self._outlook
        return PoolRecord(
            self.name, limits.min_workers, limits.max_workers, self.wanted, self.load.workers, self.reason,
            _waiting(self.reason, self.spec, self.waits_for), trouble, start_seconds=round(seen.next_start_seconds, 3),
            cold_seconds=round(seen.cold_seconds, 3), spare_seconds=round(seen.spare_seconds, 3),
            arrivals=round(outlook.arrivals, 3), expected=round(outlook.expected, 3),
            service_seconds=round(seen.service_seconds, 3), slots=self._limits().slots, need=outlook.need,
            why=words(self.reason, self.load, outlook), queued=self._queued, running=self.load.running,
            coming=self._coming(at), others=self.others,
        )  # fmt: skip

    def _coming(self, at: float) -> list[float]:
        return [round(self.measured.left_seconds(began, at), 1) for began in self._starts[:MOST_COMING]]

    def _coming_seconds(self, at: float) -> float:
        """Of a start, on average; those that an earlier scaler began are taken to begin now."""
        unknown = self.load.starting - len(self._starts)
        left = sum(self.measured.left_seconds(began, at) for began in self._starts)
        return (left + unknown * self.measured.next_start_seconds) / max(1, self.load.starting)


def others_of(registered: Sequence[WorkerRecord], roster: Sequence[WorkerRecord]) -> list[WorkerRecord]:
    """Who takes jobs and is not in the fleet's roster: workers of hosts that look after their own."""
    ours = {worker.name for worker in roster}
    able = (worker for worker in registered if worker.state != "draining" and not worker.trouble)
    return [worker for worker in able if worker.name not in ours]


def load_of(snapshot: Snapshot, roster: Sequence[WorkerRecord], start_seconds: float, others: float = 0.0) -> Load:
    """What there is to do and who is there to do it; draining workers are not."""
    states = [worker.state for worker in roster]
    return Load(
        queued=snapshot.queued, running=snapshot.running, oldest_age_seconds=snapshot.oldest_age_seconds,
        workers=len(states) - states.count("draining"), starting=states.count("starting"),
        ended=ended_jobs(snapshot.totals), start_seconds=start_seconds, others=others,
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
