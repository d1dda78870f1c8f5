"""A thread that listens on pub/sub channels and reconnects by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis

from promptq.queue.store import connect

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PING_SECONDS = 5
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0


class Listener(threading.Thread):
    """Calls `on_message(channel, text)` for each message.

    Messages sent while the connection is away are lost, so `on_connect` is called after every
    (re)subscription: what the messages announce must then be looked up. `on_disconnect` is called after
    each failed try.
    """

    def __init__(
        self,
        url: str,
        channels: Sequence[str],
        on_message: Callable[[str, str], None],
        on_connect: Callable[[], None],
        on_disconnect: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self.connected = threading.Event()
        self._client = connect(url, None, ping_seconds=PING_SECONDS)
        self._channels = channels
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._closed = threading.Event()

    def run(self) -> None:
        """Listen until closed."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._closed.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                backoff = FIRST_BACKOFF_SECONDS if self.connected.is_set() else min(LAST_BACKOFF_SECONDS, 2 * backoff)
                self.connected.clear()
                self._on_disconnect()
                log.warning("The subscription is away, trying again: %s", error)
                self._closed.wait(backoff)

    def close(self) -> None:
        """Stop listening within a moment."""
        self._closed.set()

    def _listen(self) -> None:
        with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(*self._channels)
            while not self._closed.is_set():
                if message := subscription.get_message(timeout=POLL_SECONDS):
                    self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe" and message["data"] == len(self._channels):
            self.connected.set()
            self._on_connect()
        elif message["type"] == "message":
            self._on_message(message["channel"].decode(), message["data"].decode())
