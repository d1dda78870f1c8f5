"""What the scaler last said, read at most once a second: those who poll a queued job are many."""

from __future__ import annotations

import time
from collections.abc import Callable

from promptq.queue.observe import FleetRecord

FRESH_SECONDS = 1.0


class FleetView:
    """Keeps the scaler's record for a second.

    Args:
        look: reads it from Redis.
    """

    def __init__(self, look: Callable[[], FleetRecord | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._seen: tuple[float, FleetRecord | None] | None = None

    def read(self) -> FleetRecord | None:
        """The record, or None while the scaler is silent. Raises RedisUnavailable as the observer does."""
        now = self._clock()
        if self._seen is None or now - self._seen[0] >= FRESH_SECONDS:
            self._seen = now, self._look()
        return self._seen[1]
