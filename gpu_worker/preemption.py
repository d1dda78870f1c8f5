"""Which running rows give way to more urgent jobs, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from promptq.contract.queues import PRIORITIES, Priority

REASONS = tuple(f"{urgent}_over_{patient}" for n, urgent in enumerate(PRIORITIES) for patient in PRIORITIES[n + 1 :])


class HeldJob(Protocol):
    """A job that is here. A suspect (`alone`) stays: beside whatever took its slot it could take others with it."""

    @property
    def priority(self) -> Priority: ...
    @property
    def preemptions(self) -> int: ...
    @property
    def alone(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A row as this decision sees it.

    Attributes:
        generated: tokens that it has.
        preemptions: how often its job gave way before.
    """

    id: str
    priority: Priority
    generated: int
    preemptions: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Victim:
    """A row that is to give way, and the reason, as `high_over_low`."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Need:
    """So many jobs may be claimed that are more urgent than `above`, though no slot is free."""

    count: int = 0
    above: Priority | None = None


@dataclass(frozen=True, slots=True)
class Preemption:
    """The rules.

    Attributes:
        mode: high (`high` jobs over the others), all (each priority over the lower ones), off.
        limit: how often one job gives way.
    """

    mode: Literal["high", "all", "off"] = "off"
    limit: int = 3

    def may_need(self, urgent: Priority) -> bool:
        """Whether jobs of this priority can get the slots of others."""
        return any(self._outranks(urgent, patient) for patient in PRIORITIES)

    def need(self, held: Iterable[HeldJob], waiting: int) -> Need:
        """What to claim when every slot is taken by `held` jobs, and `waiting` claims wait for one already.

        Only jobs that outrank the least urgent victim are asked for, and no more than there are such victims, so that
        each one claimed finds a row that gives way to it.
        """
        priorities = [job.priority for job in held if self._may_go(job)]
        if not priorities:
            return Need()
        if self.mode == "high":
            return Need(max(0, len(priorities) - waiting), "default")
        least = max(priorities, key=PRIORITIES.index)
        return Need(max(0, priorities.count(least) - waiting), least)

    def victims(self, waiting: Iterable[Priority], rows: Collection[RunningRow], free: int) -> list[Victim]:
        """The rows that give way to claimed jobs that found none of the `free` slots.

        The least urgent goes first, and of these the one with the least progress.
        """
        able = sorted(filter(self._may_go, rows), key=lambda row: (-PRIORITIES.index(row.priority), row.generated))
        urgent = sorted(waiting, key=PRIORITIES.index)[free:]
        pairs = zip(urgent, able, strict=False)
        return [Victim(row.id, f"{one}_over_{row.priority}") for one, row in pairs if self._outranks(one, row.priority)]

    def _outranks(self, urgent: Priority, patient: Priority) -> bool:
        if self.mode == "high":
            return urgent == "high" != patient
        return self.mode == "all" and PRIORITIES.index(urgent) < PRIORITIES.index(patient)

    def _may_go(self, job: HeldJob) -> bool:
        outranked = any(self._outranks(urgent, job.priority) for urgent in PRIORITIES)
        return outranked and job.preemptions < self.limit and not job.alone


NOTHING = Need()
NO_PREEMPTION = Preemption()
