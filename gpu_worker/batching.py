"""How many jobs to claim now, and when a batch starts. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batching:
    """The batching mode and its bounds. Engines always run every row that they are given; this is what gives them rows.

    Attributes:
        mode: continuous (fill each free slot at once), static (a batch runs to its end), off (one row at a time).
        slots: the most rows at once.
        max_wait_seconds: how long an idle engine gathers a batch before it starts.
    """

    mode: str
    slots: int
    max_wait_seconds: float = 0.0

    @property
    def limit(self) -> int:
        """The most rows that run together."""
        return 1 if self.mode == "off" else self.slots

    def is_full(self, held: int, capacity: int) -> bool:
        """Whether `held` rows are all that the engine takes now, and one more finds room if another gives way.

        Where a batch must end before the next begins, none does.
        """
        return self.mode == "continuous" and held >= min(self.slots, capacity)

    def room(self, held: int, gathering: bool) -> int:
        """Jobs to claim when `held` are claimed and unfinished; `gathering` means none of these has started."""
        if self.mode == "continuous" or held == 0 or gathering:
            return max(0, self.limit - held)
        return 0

    def starts(self, held: int, waited_seconds: float) -> bool:
        """Whether a batch that has gathered this long starts now."""
        return held >= self.limit or waited_seconds >= self.max_wait_seconds
