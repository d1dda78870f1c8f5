"""What other threads found out about running jobs, for the loop to act on between two steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from promptq.queue.store import Claim


class Verdicts:
    """Claims that were lost, and those whose job a client cancelled. Any thread may add; the loop takes.

    A verdict is of one claim: meanwhile the same job may have come back, retried, under another.
    """

    def __init__(self) -> None:
        self._lost: deque[Claim] = deque()
        self._cancelled: deque[Claim] = deque()

    def add(self, claim: Claim, verdict: str) -> None:
        """Note a verdict of the renew script, "lost" or "cancel"."""
        (self._lost if verdict == "lost" else self._cancelled).append(claim)

    def take_lost(self) -> Iterator[Claim]:
        """Each lost claim, once."""
        while self._lost:
            yield self._lost.popleft()

    def take_cancelled(self) -> Iterator[Claim]:
        """Each cancelled claim, once."""
        while self._cancelled:
            yield self._cancelled.popleft()
