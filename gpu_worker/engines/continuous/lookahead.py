"""The step that the device computes while the host reads the one before it, and goes about everything else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from gpu_worker.engines.continuous.kvcache.base import KvCache
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.runners.base import OverlappingRunner, Pending, Runner
from gpu_worker.engines.continuous.scheduler.following import following
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import Chunk

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Step:
    """Chunks that are computed together.

    Attributes:
        pending: what the runner was given already; None: nothing.
        began: monotonic seconds when the device could begin it; if submitted ahead, when the one before was read.
    """

    chunks: list[Chunk]
    pending: Pending | None = None
    began: float = 0.0


def planned(scheduler: Scheduler, cache: KvCache) -> Step:
    """Plan a step from all that is known, once rows are moved and copied as it needs."""
    for move in scheduler.plan_moves():
        cache.move(move.source, move.target, move.sequence.computed)
        scheduler.moved(move)
    plan = scheduler.plan()
    for copy in plan.copies:
        cache.move(copy.source, copy.target, copy.columns)
    return Step(plan.chunks, began=time.perf_counter())


class Lookahead:
    """Submits one step more than the engine has read, where the runner can and the next step is certain.

    The engine reads steps in order, and plans only when none is submitted: so the scheduler, prefixes and the rows'
    state know nothing of it. What was submitted for a row that has left since is not read.
    """

    def __init__(self, runner: Runner, scheduler: Scheduler) -> None:
        self._runner, self._scheduler = runner, scheduler
        self._overlapping = runner if isinstance(runner, OverlappingRunner) else None
        self._next: Step | None = None

    def next(self) -> Step | None:
        """The step that was submitted, if any of its rows still runs."""
        step, self._next = self._next, None
        live = set(self._scheduler.live)
        return step if step and any(chunk.sequence in live for chunk in step.chunks) else None

    def submit_behind(self, step: Step) -> None:
        """Submit the step that follows this one, and this one before it, if what follows is certain."""
        if self._overlapping is None:
            return
        chunks = following(step.chunks, self._scheduler.planned_for)
        if not chunks or self._scheduler.would_guess(chunks):
            return
        try:
            step.pending = step.pending or self._overlapping.submit(step.chunks)
            self._next = Step(chunks, self._overlapping.submit(chunks, step.pending))
            self._scheduler.drafts.forget()
        except Exception as error:
            # Nothing depends on it: what fails is run again when it is read, in halves.
            log.warning("a step of %d rows could not be submitted ahead: %s", len(chunks), error)

    def reader(self, step: Step) -> Callable[[list[Chunk]], Chosen]:
        """What gives the step's tokens: waits for those of its chunks as they are, and computes anything else."""

        def read(chunks: list[Chunk]) -> Chosen:
            pending, step.pending = step.pending, None
            if pending and chunks == step.chunks:
                chosen = pending.collect()
                if self._next:
                    self._next.began = time.perf_counter()
                return chosen
            self._next = None  # it went on with tokens of a step that failed, or that is now another one
            return self._runner.run(chunks)

        return read
