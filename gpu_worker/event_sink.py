"""Who receives the text of running rows as it comes."""

from __future__ import annotations

from typing import Protocol

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Event


class EventSink(Protocol):
    """Called by the loop after each step, for each row that it changed, in the order of the row's text.

    It must not block: the next step waits for it.
    """

    def took(self, run: Run, event: Event) -> None:
        """A row of this run got text or tokens, or ended."""
        ...


class NullSink:
    """Nobody receives the text before the job has ended."""

    def took(self, run: Run, event: Event) -> None: ...
