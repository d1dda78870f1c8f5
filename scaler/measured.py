"""What a pool's workers have shown: how long they take to start, and how many jobs they run at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

FIRST_START_SECONDS = 10.0
"""What a start is taken to take until one has been seen."""
WEIGHT = 0.25
"""Of the latest start in the mean."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Means of what was seen, the latest counting most; 0: not seen yet.

    Attributes:
        start_seconds: from a start to the registration, over all starts.
        cold_seconds, spare_seconds: of those that began anew, and from the warm spare.
        service_seconds: a job's time in service.
        slots: that a worker registers.
    """

    start_seconds: float = 0.0
    cold_seconds: float = 0.0
    spare_seconds: float = 0.0
    service_seconds: float = 0.0
    slots: float = 0.0

    @classmethod
    def of(cls, said: Mapping[str, float]) -> Measured:
        """From what was kept; a scaler of another version may have kept more, or less."""
        return cls(**{name: value for name, value in said.items() if name in cls.__slots__})

    @property
    def next_start_seconds(self) -> float:
        """What the next start is expected to take."""
        return self.start_seconds or FIRST_START_SECONDS

    def left_seconds(self, began: float, now: float) -> float:
        """What a start still takes; one that is late is taken to be late by as much again."""
        return abs(began + self.next_start_seconds - now)

    def started(self, seconds: float, from_spare: bool) -> Measured:
        """With one start more."""
        kind = "spare_seconds" if from_spare else "cold_seconds"
        means = {name: _mean(getattr(self, name), seconds) for name in ("start_seconds", kind)}
        return replace(self, **means)

    def registered(self, slots: Sequence[int]) -> Measured:
        """With the slots of the workers there; those that have not said theirs are 0."""
        known = [count for count in slots if count]
        return replace(self, slots=sum(known) / len(known)) if known else self


def _mean(before: float, seconds: float) -> float:
    return before + WEIGHT * (seconds - before) if before else seconds
