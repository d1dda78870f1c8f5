"""What the cache holds, so that a prompt which begins like another one need not be computed from its beginning.

Keys and values of a token depend on the tokens before it alone. So those of a shared beginning (a system prompt, the
earlier turns of a conversation) are copied out of the slot that has them, of a row that runs or one that has left.
Copying a token is far cheaper than computing it. Decides without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState

# Shorter beginnings are computed: most prompts share a token or two.
LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Copy:
    """The first so many columns of one slot are to be copied into another one."""

    source: int
    target: int
    columns: int


# So many texts are remembered, the newest ones: each is looked at when a row begins.
MOST_TEXTS = 512


@dataclass(slots=True)
class _Held:
    """A row whose keys and values are in memory, those of its first `whole` tokens at least."""

    sequence: SequenceState
    whole: int

    @property
    def tokens(self) -> int:
        return min(self.sequence.computed, self.whole)


class Prefixes:
    """Which tokens' keys and values lie where.

    Args:
        reuse: False: nothing is ever found.
    """

    def __init__(self, *, reuse: bool = True) -> None:
        self._reuse = reuse
        self._rows: dict[int, _Held] = {}

    def hold(self, slot: int, sequence: SequenceState) -> None:
        """The slot is this row's from now on; when the row leaves, its tokens stay until others lie over them."""
        self._rows.pop(slot, None)
        self._rows[slot] = _Held(sequence, sequence.most_tokens)
        if len(self._rows) > MOST_TEXTS:
            del self._rows[next(iter(self._rows))]

    def forget(self, slot: int) -> None:
        """What lies in the slot is of no use."""
        self._rows.pop(slot, None)

    def best(self, prompt: list[int]) -> tuple[int, int]:
        """The slot that holds most of the prompt's beginning, and how many tokens of it; (-1, 0) if none is of use.

        The prompt's last token is always left to compute: its output is what the first new token is chosen by.
        """
        rows = self._rows.items() if self._reuse else ()
        found = ((shared(prompt, held.sequence.text, held.tokens), -slot) for slot, held in rows)
        columns, slot = max(found, default=(0, 1))  # of equals the lowest slot
        return (-slot, columns) if columns else (-1, 0)

    def coming(self, prompt: list[int], chunks: Iterable[Chunk]) -> int:
        """How many tokens of the prompt's beginning the rows of these chunks compute, in this step or later ones."""
        if not self._reuse:
            return 0
        rows = (chunk.sequence for chunk in chunks)
        return max((shared(prompt, row.prompt, len(row.prompt)) for row in rows), default=0)


class SpanPrefixes(Prefixes):
    """The same where rows lie anywhere in one pool: a row may come to lie over the end of a text that is remembered,
    and its beginning is still whole, or over its beginning, and the rest is of no use.
    """

    def hold(self, slot: int, sequence: SequenceState) -> None:
        stop = slot + sequence.most_tokens
        for start, held in list(self._rows.items()):
            if slot <= start < stop:
                self.forget(start)
            elif start < slot < start + held.whole:
                held.whole = slot - start
        super().hold(slot, sequence)


def shared(prompt: list[int], text: list[int], computed: int) -> int:
    """How many tokens the prompt, without its last one, and the first `computed` ones of a text have in common."""
    room = min(len(prompt) - 1, computed, len(text))
    if room < LEAST_TOKENS or prompt[LEAST_TOKENS - 1] != text[LEAST_TOKENS - 1]:
        return 0  # nearly all pairs: the rest need not be looked at
    if prompt[:room] == text[:room]:
        return room
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt[:room], text, strict=False)))
