"""Who hands out the memory of rows. What the scheduler asks for, and the simplest answer: a slot for each row.

Decides without torch: a room knows which part of a cache is whose, and the cache what lies there.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpu_worker.engines.continuous.scheduler.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class Move:
    """A row whose keys and values are to leave their memory for another, which may overlap it."""

    sequence: SequenceState
    source: int
    target: int


class Room(Protocol):
    """The memory of one cache.

    Attributes:
        tokens: of all rows together.
        reserved: of these, tokens that rows hold now.
    """

    tokens: int

    @property
    def reserved(self) -> int: ...

    def take(self, tokens: int, near: int = -1) -> int | None:
        """The slot of a row of so many tokens; None: nothing is free that is large enough.

        Args:
            near: a slot that holds what the row begins with; taken if it is free and has room for all of it.
        """
        ...

    def give_back(self, slot: int) -> None:
        """A row has left."""
        ...

    def rows_that_fit(self, coming: int) -> int | None:
        """How many more rows of the usual length fit, beside `coming` tokens that are promised; None: any number."""
        ...

    def note(self, tokens: int) -> None:
        """A row of so many tokens came: what is usual."""
        ...

    def could_fit(self, live: Sequence[SequenceState], tokens: int) -> bool:
        """Whether moves would make room for a row of so many tokens."""
        ...

    def moves(self, live: Sequence[SequenceState], wanted: int) -> list[Move]:
        """What to move before the next step, in this order.

        A row whose prompt is not computed stays: nobody knows yet whether the numbers in its memory are finite.

        Args:
            live: all rows.
            wanted: tokens of the row that waits for room; 0: none does.
        """
        ...

    def moved(self, move: Move) -> None:
        """The row lies at the target now."""
        ...


class SlotRoom:
    """A slot for each row, each as long as the context. See `Room`.

    Args:
        columns: tokens of a slot.
    """

    def __init__(self, slots: int, columns: int) -> None:
        self.tokens = slots * columns
        self._slots, self._columns = slots, columns
        self._vacant = list(range(slots))

    @property
    def reserved(self) -> int:
        return (self._slots - len(self._vacant)) * self._columns

    def take(self, _tokens: int, _near: int = -1) -> int | None:
        """The lowest vacant one: decoding runs over the slots below the highest live one."""
        return heapq.heappop(self._vacant) if self._vacant else None

    def give_back(self, slot: int) -> None:
        heapq.heappush(self._vacant, slot)

    def rows_that_fit(self, _coming: int) -> int | None:
        return None

    def note(self, _tokens: int) -> None:
        """Nothing: all slots are alike."""

    def could_fit(self, _live: Sequence[SequenceState], _tokens: int) -> bool:
        return False

    def moves(self, live: Sequence[SequenceState], _wanted: int) -> list[Move]:
        """The row of the highest slot into the lowest vacant one, unless a row without a slot will fill that.

        Rows that lie close together are read in fewer calls, and nothing between them is read in vain. One a step, as
        a long row takes a while to copy.
        """
        last = max(live, key=by_slot, default=None)
        if last is None or not last.is_prefilled or not self._vacant or by_slot(last) < self._vacant[0]:
            return []
        waits = any(sequence.slot is None for sequence in live)
        return [] if waits else [Move(last, by_slot(last), self._vacant[0])]

    def moved(self, move: Move) -> None:
        heapq.heapreplace(self._vacant, move.source)


def by_slot(sequence: SequenceState) -> int:
    """Sorts rows by where they lie; first those that lie nowhere yet."""
    return -1 if sequence.slot is None else sequence.slot
