"""What a decision is made of: the limits, and the load at one moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptq.contract.settings import ScalerSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the number of workers.

    Attributes:
        slots: jobs that one worker runs at a time.
        target_wait_seconds: 95 % of the jobs are to begin within this time.
        zero_delay_seconds: how long nothing must have been there before the last worker goes.
    """

    min_workers: int
    max_workers: int
    slots: float = 16
    target_wait_seconds: float = 1
    zero_delay_seconds: float = 300

    @classmethod
    def of(cls, settings: ScalerSettings, min_workers: int, max_workers: int, slots: float = 16) -> Limits:
        """The limits in the settings, for a pool with these bounds whose workers have so many slots."""
        given = settings.target_jobs_per_worker
        slots = slots if given == "auto" else given
        return cls(min_workers, max_workers, slots, settings.target_wait_seconds, settings.zero_delay_seconds)

    def clamp(self, workers: int) -> int:
        """The nearest number of workers that is allowed."""
        return max(self.min_workers, min(self.max_workers, workers))

    def workers(self, jobs: float, others: float = 0.0) -> int:
        """The fewest workers that have a slot for each of so many jobs, beside those of others."""
        return max(0, math.ceil(jobs / self.slots - others - 1e-9))


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, and who is there to do it.

    Attributes:
        oldest_age_seconds: how long the job that has waited longest has waited.
        workers: processes that work or will: starting ones count, draining ones do not.
        starting: those of them that have not registered yet.
        ended: running total of the jobs that have ended.
        start_seconds: how long a worker takes from the decision until it can claim, as measured.
        coming_seconds: how long those that are starting still take, on average.
        others: as many workers' capacity is there that somebody else started.
    """

    queued: int
    running: int
    oldest_age_seconds: float
    workers: int
    starting: int = 0
    ended: int = 0
    start_seconds: float = 10.0
    others: float = 0.0
    coming_seconds: float = 0.0

    @property
    def jobs(self) -> int:
        """Jobs that need a worker."""
        return self.queued + self.running
