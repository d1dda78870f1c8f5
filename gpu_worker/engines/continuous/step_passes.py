"""A step's chunks go through the model: in one pass, or in as few as the memory allows. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gpu_worker.engines.continuous.retry_halves import run_in_halves
from gpu_worker.engines.continuous.scheduler.memory_limits import MemoryLimits, shorter
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, Failure

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class StepPasses(Generic[Result]):
    """One step.

    Args:
        run: one pass over the model.
        limits: lowered where a pass is too large.

    Attributes:
        computed: the chunks that went through. Of one that did not fit it may be a part.
        failed: those that failed alone, and why.
        too_large: how many passes were too large for the memory.
    """

    def __init__(self, run: Callable[[list[Chunk]], Result], limits: MemoryLimits) -> None:
        self._run = run
        self._limits = limits
        self.computed: list[Chunk] = []
        self.failed: list[tuple[Chunk, Failure]] = []
        self.too_large = 0

    def run(self, chunks: list[Chunk]) -> list[tuple[list[Chunk], Result]]:
        """The passes that succeeded, in order, each with its result.

        Raises:
            EngineBroken: the device is lost.
        """
        done = []
        for part in self._limits.passes(chunks):
            done += run_in_halves(part, self._run, self._give_up, shorter, self._note_too_large)
        self._limits.note_step()
        self.computed = [chunk for chunks, _ in done for chunk in chunks]
        return done

    def _give_up(self, chunk: Chunk, reason: Failure) -> None:
        self.failed.append((chunk, reason))

    def _note_too_large(self, chunks: Sequence[Chunk]) -> None:
        self.too_large += 1
        log.warning("the memory is too short for a step: %s", self._limits.too_large(chunks))
