"""Which rows one call of attention covers. Decides without torch.

A call reads neighbouring slots, all as far as the longest of them, and those between that have nothing to compute too.
So rows far apart, or of very different lengths, go into different calls: what a call costs is weighed against the
columns that are read in vain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_worker.engine.sequence import Chunk

# Columns are read in multiples of this.
READ_BUCKET = 16
# What one more call costs, in columns of one row (measured on a CPU: 40 µs against 0.1 µs).
CALL_COLUMNS = 400


@dataclass(slots=True)
class Segment:
    """Slots [first, first + rows), which see at most `width` columns.

    Attributes:
        tokens: new tokens of each row that has any.
        live: which of the slots have any, counted from `first`. The others are read in vain, and may be free.
    """

    first: int
    rows: int
    tokens: int
    width: int
    live: list[int]


def segments(chunks: Iterable[Chunk]) -> list[Segment]:
    """Cover the chunks, in their order. Those of as many tokens share a segment where it pays; only those of one token
    may have slots between them that are read in vain.
    """
    found: list[Segment] = []
    for chunk in chunks:
        one = Segment(chunk.slot, 1, chunk.stop - chunk.start, round_up(chunk.stop, READ_BUCKET), [0])
        if found and _pays(found[-1], one):
            _extend(found[-1], one)
        else:
            found.append(one)
    return found


def _pays(segment: Segment, one: Segment) -> bool:
    """Whether reading `one`, and the slots before it, with the segment costs no more than a call of its own."""
    behind = one.first - segment.first - segment.rows
    if one.tokens != segment.tokens or behind < 0 or (behind and one.tokens > 1):
        return False
    together = (one.first - segment.first + 1) * max(segment.width, one.width)
    return together <= segment.rows * segment.width + one.width + CALL_COLUMNS


def _extend(segment: Segment, one: Segment) -> None:
    segment.live.append(one.first - segment.first)
    segment.rows = segment.live[-1] + 1
    segment.width = max(segment.width, one.width)


def round_up(number: int, step: int) -> int:
    """The next multiple of the step."""
    return -(-number // step) * step
