"""One pool of tokens for all rows: each holds a span of it, as many tokens as it can come to. No torch here.

A row's prompt and the most tokens that it may generate are known when it enters, so its span never grows, and a row is
one contiguous range. What is free is then in pieces: where they are large enough together for a row that waits, and
none of them is, rows move down until one is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.room import Move, by_slot
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState

# Spans are multiples of so many tokens: attention reads columns in multiples of as many, and so never another's.
SPAN_BUCKET = 16
# Tokens that are moved before one step, so that no step waits long for it; one row at least.
MOVED_TOKENS = 4096
# How much of what is known of a row's usual length the newest row tells.
NEWS_SHARE = 1 / 16


class Spans:
    """Contiguous ranges of a pool: a row's slot is its first token. See `room.Room`.

    Args:
        tokens: of the pool, a multiple of SPAN_BUCKET.
        longest: the most tokens of a row. It is what is thought usual until rows have come.
    """

    def __init__(self, tokens: int, longest: int) -> None:
        self.tokens = tokens
        self._usual: float = round_up(longest, SPAN_BUCKET)
        self._sizes: dict[int, int] = {}

    @property
    def reserved(self) -> int:
        return sum(self._sizes.values())

    def take(self, tokens: int, near: int = -1) -> int | None:
        """Where the row's beginning lies already; else at the start of the smallest gap that is large enough."""
        size, gaps = round_up(tokens, SPAN_BUCKET), self._gaps()
        if any(near in gap and near + size <= gap.stop for gap in gaps):
            slot = near
        else:
            best = min((gap for gap in gaps if len(gap) >= size), key=len, default=None)
            if best is None:
                return None
            slot = best.start
        self._sizes[slot] = size
        return slot

    def give_back(self, slot: int) -> None:
        del self._sizes[slot]

    def rows_that_fit(self, coming: int) -> int | None:
        return max(0, int((self.tokens - self.reserved - coming) / self._usual))

    def note(self, tokens: int) -> None:
        self._usual += NEWS_SHARE * (round_up(tokens, SPAN_BUCKET) - self._usual)

    def could_fit(self, live: Sequence[SequenceState], tokens: int) -> bool:
        return bool(self._plan(live, tokens))

    def moves(self, live: Sequence[SequenceState], wanted: int) -> list[Move]:
        """The moves that make room for the row that waits, or the first of them: what is left is planned anew, and
        costs less then. None where a gap is large enough, or moves would not help.
        """
        plan = self._plan(live, wanted) if wanted else []
        moved = accumulate(move.sequence.computed for move in plan)
        few = [move for move, tokens in zip(plan, moved, strict=True) if tokens <= MOVED_TOKENS]
        return few or plan[:1]

    def moved(self, move: Move) -> None:
        self._sizes[move.target] = self._sizes.pop(move.source)

    def _gaps(self) -> list[range]:
        """What is free, from below."""
        ends = [0, *(slot + size for slot, size in sorted(self._sizes.items()))]
        return [range(end, start) for end, start in zip(ends, [*sorted(self._sizes), self.tokens], strict=True)]

    def _plan(self, live: Sequence[SequenceState], tokens: int) -> list[Move]:
        """Rows to move down, the lowest first, so that the gaps between them become one of so many tokens; of all ways
        the one with the fewest tokens to move.
        """
        size, gaps = round_up(tokens, SPAN_BUCKET), list(map(len, self._gaps()))
        if max(gaps) >= size or sum(gaps) < size:
            return []
        rows = sorted((row for row in live if row.slot is not None), key=by_slot)
        windows = ((_cost(rows[first:stop]), first, stop) for first, stop in _windows(rows, gaps, size))
        _, first, stop = min(windows, default=(0, 0, 0))
        return self._moves_down(rows[first:stop], gaps[first:stop])

    def _moves_down(self, rows: Sequence[SequenceState], gaps: Sequence[int]) -> list[Move]:
        """Each row by all the gaps before it."""
        return [
            Move(row, by_slot(row), by_slot(row) - by) for row, by in zip(rows, accumulate(gaps), strict=True) if by
        ]


def _windows(rows: Sequence[SequenceState], gaps: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Rows [first, stop) that may move, around which the gaps are large enough together: for each first the fewest.

    Args:
        gaps: before each row, and behind the last one.
    """
    before = list(accumulate(gaps, initial=0))
    for first in range(len(rows)):
        last_gap = bisect_left(before, before[first] + size) - 1
        if last_gap < len(gaps) and all(row.is_prefilled for row in rows[first:last_gap]):
            yield first, last_gap


def _cost(rows: Sequence[SequenceState]) -> int:
    return sum(row.computed for row in rows)
