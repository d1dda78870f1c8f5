"""Which rows one call of attention covers. Decides without torch.

A call reads neighbouring slots, all as far as the longest of them, and those between that have nothing to compute too.
So rows far apart, or of very different lengths, go into different calls: what a call costs is weighed against the
columns that are read in vain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from gpu_worker.engines.continuous.scheduler.spans import SPAN_BUCKET

# Columns are read in multiples of this: of spans never another's.
READ_BUCKET = SPAN_BUCKET
# What one more call costs, in columns of one row; as measured on a CPU.
CALL_COLUMNS = 400


@dataclass(slots=True)
class AttentionGroup:
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


def attention_groups(chunks: Iterable[Chunk], *, alone: bool = False) -> list[AttentionGroup]:
    """Cover the chunks, in their order. Those of as many tokens share a group where it pays; only those of one token
    may have slots between them that are read in vain.

    Args:
        alone: each has a group of its own, as where rows do not lie in slots.
    """
    found: list[AttentionGroup] = []
    for chunk in chunks:
        one = AttentionGroup(chunk.slot, 1, chunk.stop - chunk.start, round_up(chunk.stop, READ_BUCKET), [0])
        if found and not alone and _pays(found[-1], one):
            _extend(found[-1], one)
        else:
            found.append(one)
    return found


def _pays(group: AttentionGroup, one: AttentionGroup) -> bool:
    """Whether reading `one`, and the slots before it, with the group costs no more than a call of its own."""
    behind = one.first - group.first - group.rows
    if one.tokens != group.tokens or behind < 0 or (behind and one.tokens > 1):
        return False
    together = (one.first - group.first + 1) * max(group.width, one.width)
    return together <= group.rows * group.width + one.width + CALL_COLUMNS


def _extend(group: AttentionGroup, one: AttentionGroup) -> None:
    group.live.append(one.first - group.first)
    group.rows = group.live[-1] + 1
    group.width = max(group.width, one.width)
