"""Who receives the text of running rows as it comes."""

from __future__ import annotations

from typing import Protocol

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Event


class EventSink(Protocol):
    """Called by the loop after each step, for each row that it changed, in the order of the row's text.

    `took` and `dropped` must not block: the next step waits for them.
    """

    def took(self, run: Run, event: Event) -> None:
        """A row of this run got text or tokens, or ended."""
        ...

    def dropped(self, run: Run) -> None:
        """The row of this run is gone without an end: its claim was lost."""
        ...

    def keep(self) -> None:
        """Store what was taken: the rows are about to be given back.

        Raises:
            RedisUnavailable: it could not be stored.
        """
        ...
