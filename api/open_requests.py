"""The requests that are open in this process, bounded, so that those that wait leave room for the others."""

from __future__ import annotations

from collections import Counter

from api.errors import Overloaded, TooManyRequests
from promptq.contract.settings import ApiSettings

EVERYBODY = ""


class OpenRequests:
    """Counts the guarded requests of everybody, and those of each API key."""

    def __init__(self, settings: ApiSettings) -> None:
        self._most = settings.api_connections
        self._most_of_a_key = settings.key_open_requests
        self._open: Counter[str] = Counter()

    def enter(self, name: str = EVERYBODY) -> None:
        """Count a request as open.

        Args:
            name: of its API key, or everybody's.

        Raises:
            Overloaded: the process has as many as it may.
            TooManyRequests: the key has.
        """
        count = self._open[name]
        if name == EVERYBODY and count >= self._most:
            raise Overloaded(f"{count} requests are open in this process of the API, which is the limit.")
        if name != EVERYBODY and count >= self._most_of_a_key:
            message = f"{count} requests of this key are open, which is the limit."
            raise TooManyRequests("too_many_open_requests", message, 1)
        self._open[name] += 1

    def leave(self, name: str = EVERYBODY) -> None:
        """Count a request as open no longer."""
        self._open[name] -= 1
