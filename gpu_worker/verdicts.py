"""What other threads found out about running jobs, for the loop to act on between two steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from promptq.queue.store import Claim


class Verdicts:
    """Claims that were lost, and jobs that a client cancelled. Any thread may add; the loop takes."""

    def __init__(self) -> None:
        self._lost: deque[Claim] = deque()
        self._cancelled: deque[str] = deque()

    def add(self, claim: Claim, verdict: str) -> None:
        """Note a verdict of the renew script, "lost" or "cancel"."""
        if verdict == "lost":
            self._lost.append(claim)
        else:
            self._cancelled.append(claim.id)

    def take_lost(self) -> Iterator[Claim]:
        """Each lost claim, once."""
        while self._lost:
            yield self._lost.popleft()

    def take_cancelled(self) -> Iterator[str]:
        """Each cancelled job's id, once."""
        while self._cancelled:
            yield self._cancelled.popleft()
