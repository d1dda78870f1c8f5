"""What workers publish in Redis and the API needs again and again: read once in a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from promptq.contract.errors import RedisUnavailable

FACTS_SECONDS = 30.0
RETRY_SECONDS = 1.0

Fact = TypeVar("Fact")


class Published(Generic[Fact]):
    """Keeps what was read last.

    Args:
        read: gives what is published, None where nothing is; takes what is known already.
    """

    def __init__(self, read: Callable[[Fact | None], Fact | None]) -> None:
        self._read = read
        self._known: Fact | None = None
        self._stale_at = 0.0
        self._lock = threading.Lock()

    def current(self) -> Fact | None:
        """What is published, as it was half a minute ago at the latest; None: nothing is known of it.

        Raises:
            RedisUnavailable: it does not answer now; for the next second what is known stays so.
        """
        with self._lock:
            if time.monotonic() >= self._stale_at:
                self._refresh()
            return self._known

    def _refresh(self) -> None:
        try:
            self._known = self._read(self._known)
            known_for = RETRY_SECONDS if self._known is None else FACTS_SECONDS
        except RedisUnavailable:
            # Whoever asks is about to need Redis: to wait for it once is enough.
            self._stale_at = time.monotonic() + RETRY_SECONDS
            raise
        self._stale_at = time.monotonic() + known_for
