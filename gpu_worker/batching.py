"""How many jobs to claim now. Pure."""

from __future__ import annotations

from dataclasses import dataclass

AHEAD_SECONDS = 0.02
"""The longest that a job claimed ahead should have to wait for its slot."""


@dataclass(frozen=True, slots=True)
class Batching:
    """The batching mode and its bounds.

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

    def room(self, held: int, gathering: bool, ahead: int = 0) -> int:
        """Jobs to claim when `held` are claimed and unfinished; `gathering` means none of these has started.

        Args:
            ahead: jobs to hold beyond the slots.
        """
        if self.mode == "continuous" or held == 0 or gathering:
            return max(0, self.limit + ahead - held)
        return 0

    def ahead(self, ended: int, seconds: float) -> int:
        """Jobs to hold beyond the slots, when so many ended in that time: a batch, if it is through before long.

        While that is so, the queue's round trips would else be what the engine waits for. A job claimed ahead waits
        here though another worker may be idle, so slower engines claim none.
        """
        quick = self.mode == "continuous" and ended * AHEAD_SECONDS >= self.limit * seconds
        return self.limit if quick else 0

    def starts(self, held: int, waited_seconds: float) -> bool:
        """Whether a batch that has gathered this long starts now."""
        return held >= self.limit or waited_seconds >= self.max_wait_seconds
