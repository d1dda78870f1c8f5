"""The one subscription of an API process, for all who wait in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from promptq.queue.listener import Listener


@dataclass(frozen=True, slots=True)
class Hearer:
    """Who is to be told.

    Attributes:
        note: given a channel and its message, which is ids of jobs with spaces between.
        note_all: messages may have been missed, or may be missed from now on.
    """

    channels: Sequence[str]
    note: Callable[[str, str], None]
    note_all: Callable[[], None]


class Subscription:
    """Made on first use: in the gunicorn worker, after the fork.

    Args:
        on_loss: told when it is away, before anybody reads again.
    """

    def __init__(
        self, url: str, on_loss: Callable[[], None] = lambda: None, make_listener: Callable[..., Listener] = Listener
    ) -> None:
        self._url = url
        self._on_loss = on_loss
        self._make_listener = make_listener
        self._hearers: list[Hearer] = []
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._closed = False

    def add(self, hearer: Hearer) -> None:
        """Tell somebody more, from the first use on."""
        self._hearers.append(hearer)

    def start(self) -> None:
        """Subscribe, if that was not done yet."""
        with self._lock:
            if self._listener or self._closed:
                return
            channels = list(dict.fromkeys(channel for hearer in self._hearers for channel in hearer.channels))
            self._listener = self._make_listener(
                self._url, channels, self._note, on_connect=self._note_all, on_disconnect=self._lose
            )
            self._listener.start()

    def close(self) -> None:
        """Hear nothing more: the process is about to stop."""
        with self._lock:
            self._closed = True
            if self._listener:
                self._listener.close()

    def _note(self, channel: str, ids: str) -> None:
        for hearer in self._hearers:
            if channel in hearer.channels:
                hearer.note(channel, ids)

    def _note_all(self) -> None:
        for hearer in self._hearers:
            hearer.note_all()

    def _lose(self) -> None:
        self._on_loss()
        self._note_all()
