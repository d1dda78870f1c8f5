"""What one endpoint is to be sent next. Each has its own, so that none waits for another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from promptq.contract.webhook_records import Delivery, Endpoint

AT_ONCE: Final = 4
"""Events that an endpoint is sent at the same time; one, once a try has failed, until one succeeds."""
MOST: Final = 64
"""Deliveries that are in memory for an endpoint."""


class EndpointQueue:
    """Deliveries of one endpoint, which threads take and send. What is in it is in Redis until it has ended.

    Attributes:
        endpoint: its record, as it was in the last round.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()
        self._known: set[str] = set()
        self._threads = 0
        self._allowed = AT_ONCE

    @property
    def known(self) -> Collection[str]:
        """The ids of deliveries that wait here, or are being sent."""
        with self._lock:
            return frozenset(self._known)

    def add(self, deliveries: Iterable[Delivery]) -> int:
        """Put deliveries at the end; tells how many more threads should send now, and counts them as begun."""
        with self._lock:
            for delivery in deliveries:
                self._waiting.append(delivery)
                self._known.add(delivery.id)
            more = max(0, min(self._allowed, self._threads + len(self._waiting)) - self._threads)
            self._threads += more
            return more

    def take(self) -> Delivery | None:
        """What the calling thread sends next; None: nothing, and the thread counts as ended."""
        with self._lock:
            if self._waiting and self._threads <= self._allowed:
                return self._waiting.popleft()
            self._threads -= 1
            return None

    def done(self, delivery: Delivery, *, succeeded: bool) -> None:
        """What came of it is written down."""
        with self._lock:
            self._known.discard(delivery.id)
            self._allowed = AT_ONCE if succeeded else 1

    def clear(self) -> None:
        """Forget what waits here; Redis has it."""
        with self._lock:
            self._known -= {delivery.id for delivery in self._waiting}
            self._waiting.clear()
