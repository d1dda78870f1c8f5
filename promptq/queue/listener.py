"""A thread that listens on pub/sub channels and reconnects by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from promptq.queue.store import connect

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PING_SECONDS = 2.0
"""Nothing has come for so long: the server is asked for a word."""
ANSWER_SECONDS = 3.0
"""Nothing has come for so long since: nothing will."""
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0


class Pulse:
    """Whether anything still comes over a connection on which mostly nothing does. Times are steady seconds."""

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._asked_at: float | None = None

    def hear(self, now: float) -> None:
        """Something came, an answer or not."""
        self._heard_at, self._asked_at = now, None

    def ask(self, now: float) -> bool:
        """Whether to ask for an answer now."""
        if self._asked_at is not None or now - self._heard_at < PING_SECONDS:
            return False
        self._asked_at = now
        return True

    def is_dead(self, now: float) -> bool:
        """Whether an answer is overdue."""
        return self._asked_at is not None and now - self._asked_at >= ANSWER_SECONDS


class Listener(threading.Thread):
    """Calls `on_message(channel, text)` for each message.

    Messages sent while the connection is away are lost, so `on_connect` is called after every
    (re)subscription: what the messages announce must then be looked up. `on_disconnect` is called after
    each failed try.

    A connection that is cut off without being closed looks like one on which there is nothing to say. So the server is
    asked now and then, and what came back counts: redis-py's own health check sends, and misses no answer.
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
        # Not tried again by redis-py itself: it would do so without a word.
        self._client = connect(url, ANSWER_SECONDS, retries=0)
        self._channels = channels
        self._on_message = on_message
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._closed = threading.Event()
        self._away = False

    def run(self) -> None:
        """Listen until closed."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._closed.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                backoff = FIRST_BACKOFF_SECONDS if self.connected.is_set() else min(LAST_BACKOFF_SECONDS, 2 * backoff)
                self._note_loss(error)
                self._closed.wait(backoff)
            except Exception:
                # Whoever is called here may fail; those who rely on being called must not.
                log.exception("A message could not be handled; subscribing anew.")
                self._closed.wait(LAST_BACKOFF_SECONDS)

    def close(self) -> None:
        """Stop listening within a moment."""
        self._closed.set()

    def _listen(self) -> None:
        with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(*self._channels)
            pulse = Pulse(time.monotonic())
            while not self._closed.is_set():
                self._wait(subscription, pulse)

    def _wait(self, subscription: Any, pulse: Pulse) -> None:
        """For a message, or until it is time to look at the connection."""
        # Before the read: a process that was stopped meanwhile finds its answer at the next one.
        began = time.monotonic()
        if message := subscription.get_message(timeout=POLL_SECONDS):
            pulse.hear(time.monotonic())
            self._handle(message)
        elif pulse.is_dead(began):
            raise redis.TimeoutError(f"nothing came back for {PING_SECONDS + ANSWER_SECONDS:g} s")
        elif pulse.ask(began):
            subscription.ping()

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe" and message["data"] == len(self._channels):
            self._note_return()
            self._on_connect()
        elif message["type"] == "message":
            self._on_message(message["channel"].decode(), message["data"].decode(errors="replace"))

    def _note_loss(self, error: redis.RedisError) -> None:
        self.connected.clear()
        if not self._away:
            log.warning("The subscription is away, trying again: %s", error)
        self._away = True
        self._on_disconnect()

    def _note_return(self) -> None:
        self.connected.set()
        if self._away:
            log.info("The subscription is back.")
        self._away = False
