"""How starting goes, of one pool: its trouble, and how long after a crash the next try waits."""

from __future__ import annotations

from collections import defaultdict

from scaler.backoff import Backoff
from scaler.fleets.base import Exit


class Starts:
    """Of the workers of one pool. Times are steady seconds.

    Attributes:
        trouble: why workers do not start; empty once one has registered since, or, where an engine broke, once a
            worker has proved stable.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self.backoff = Backoff()
        self._lasts = False

    @property
    def backs_off(self) -> bool:
        """Whether a crash keeps workers from starting as wanted."""
        return self.backoff.failures > 0

    def registered(self) -> None:
        """A worker has come."""
        self.trouble = self.trouble if self._lasts else ""

    def proved(self, spawned_at: float) -> None:
        """A worker that was started then is stable."""
        self.backoff.proved(spawned_at)
        if self._lasts and not self.backoff.failures:
            self.trouble, self._lasts = "", False

    def refused(self, words: str, now: float) -> None:
        """A worker could not even be made."""
        self.trouble = words
        self.backoff.fail(now)

    def ended(self, end: Exit, was_stable: bool, now: float) -> None:
        """A worker ended that was not told to."""
        # A worker that ran for long may end suddenly; one whose engine broke says that the next one's may too.
        breaks = end.reason == "engine_broken"
        if end.reason in ("drain_timeout", "evicted", "node_lost") or (was_stable and not breaks):
            return
        self._lasts = breaks
        self.trouble = str(end)
        self.backoff.fail(now)


class StartsByPool:
    """The part of a `Fleet` that is about starting, where a crash is all that makes the next start wait."""

    def __init__(self) -> None:
        self._starts: defaultdict[str, Starts] = defaultdict(Starts)

    def trouble(self, pool: str) -> str:
        """Why workers of this pool do not start, with exit code and last words."""
        return self._starts[pool].trouble

    def backs_off(self, pool: str) -> bool:
        """Whether a crash keeps workers of this pool from starting as wanted."""
        return self._starts[pool].backs_off

    def retry_in(self, pool: str, now: float) -> float | None:
        """Seconds until the next try after a crash, or None when nothing waits for it."""
        return self._starts[pool].backoff.retry_in(now)

    def _allowed(self, room: int, pool: str, starting: int, now: float) -> int:
        """How many workers may be started: of what there is room for, what a crash has left.

        Args:
            starting: workers of the pool that start already.
        """
        limit = self._starts[pool].backoff.room(starting, now)
        return max(0, room if limit is None else min(room, limit))
