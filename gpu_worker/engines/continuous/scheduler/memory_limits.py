"""How much one pass over the model may have, once one was too large for the memory. No torch here.

Half of what failed is tried from then on, and slowly more: what took the memory may be gone again. Without a limit each
step would find out anew, by failing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu_worker.engines.continuous.scheduler.sequence import Chunk

# Fewer prompt tokens at once are not tried: a chunk of so many that fails alone fails its row.
LEAST_PROMPT_TOKENS = 16
# Steps without a failure after which a limit is raised by an eighth.
CALM_STEPS = 256


class Limit:
    """The most tokens of one kind.

    Args:
        least: it is never lower.

    Attributes:
        most: None: any number.
    """

    def __init__(self, least: int) -> None:
        self.most: int | None = None
        self._least = least
        self._failed = 0
        self._calm_steps = 0

    def lower(self, tokens: int) -> None:
        """So many were too many."""
        half = max(self._least, tokens // 2)
        self.most = half if self.most is None else min(self.most, half)
        self._failed = max(self._failed, tokens)
        self._calm_steps = 0

    def note_step(self) -> None:
        """A step went by; where none failed for a while, more is tried, and after as much as ever failed anything."""
        self._calm_steps += 1
        if self.most is None or self._calm_steps < CALM_STEPS:
            return
        self._calm_steps = 0
        self.most += max(1, self.most // 8)
        if self.most >= self._failed:
            self.most, self._failed = None, 0


class MemoryLimits:
    """Of the newest tokens of running rows, their drafts included, and of prompts."""

    def __init__(self) -> None:
        self.running = Limit(1)
        self.prompts = Limit(LEAST_PROMPT_TOKENS)

    def too_large(self, chunks: Sequence[Chunk]) -> str:
        """A pass of these chunks was too large for the memory. Returns what follows from that.

        Prompts are what a pass can best do with less of; rows that run wait for every part of their step.
        """
        prompts = sum(_size(chunk) for chunk in chunks if not chunk.decodes)
        running = sum(map(_size, chunks)) - prompts
        if prompts > LEAST_PROMPT_TOKENS or not running:
            self.prompts.lower(prompts)
            return f"at most {self.prompts.most} prompt tokens at once from now on"
        self.running.lower(running)
        return f"at most {self.running.most} tokens of running rows at once from now on"

    def note_step(self) -> None:
        """A step went by."""
        self.running.note_step()
        self.prompts.note_step()

    def passes(self, chunks: list[Chunk]) -> list[list[Chunk]]:
        """The chunks in as few passes as keep to the limits; one chunk that exceeds them has a pass of its own.

        Where there is a limit, prompts are apart from rows that run: together they would need more than either.
        """
        if self.running.most is self.prompts.most is None:
            return [chunks] if chunks else []
        passes = _split([chunk for chunk in chunks if chunk.decodes], self.running.most)
        return passes + _split([chunk for chunk in chunks if not chunk.decodes], self.prompts.most)


def shorter(chunk: Chunk) -> Chunk | None:
    """A part of the chunk that needs less memory, for one that fails alone: what is left is planned anew. None: there
    is no such part.
    """
    if chunk.decodes:
        return Chunk(chunk.sequence, chunk.start, chunk.start + 1) if chunk.drafts else None
    if _size(chunk) <= LEAST_PROMPT_TOKENS:
        return None
    return Chunk(chunk.sequence, chunk.start, chunk.start + max(LEAST_PROMPT_TOKENS, _size(chunk) // 2))


def _split(chunks: Sequence[Chunk], most: int | None) -> list[list[Chunk]]:
    passes: list[list[Chunk]] = []
    room = 0
    for chunk in chunks:
        if not passes or (most is not None and _size(chunk) > room):
            passes.append([])
            room = most or 0
        passes[-1].append(chunk)
        room -= _size(chunk)
    return passes


def _size(chunk: Chunk) -> int:
    return chunk.stop - chunk.start
