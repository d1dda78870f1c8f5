"""Connections to other people's addresses. The address that is connected to is the one that was checked: a name that
means another one a moment later reaches nothing inside."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, Queue
from typing import Any, Final

import httpcore2

from dispatcher.deliveries.deadline import DeadlineStream
from promptq.contract.addresses import is_public

PRIVATE: Final = "an address that is not public"
Resolve = Callable[[str, int], Sequence[str]]


class Forbidden(Exception):
    """The name means an address that nothing may be sent to."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, each once.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedBackend(httpcore2.NetworkBackend):
    """Connects to public addresses only.

    Args:
        seconds: that a connection may live, the look-up of its name included.
        allows_private: connect to any address: for receivers inside one's own network.

    Attributes:
        seconds: as given.
    """

    def __init__(self, seconds: float, *, allows_private: bool = False, resolve: Resolve = resolve) -> None:
        self.seconds = seconds
        self._allows_private = allows_private
        self._resolve = resolve
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to the first of the name's addresses that answers.

        Raises:
            Forbidden: one of them is not public. A name that means both is a trap, or set up wrongly.
            httpcore2.ConnectError, httpcore2.ConnectTimeout: none answers.
        """
        deadline = time.monotonic() + self.seconds
        addresses = self._look_up(host, port)
        if not self._allows_private and not all(map(is_public, addresses)):
            raise Forbidden(PRIVATE)
        trouble: Exception = httpcore2.ConnectError("the name has no address")
        for address in addresses:
            try:
                left = max(0.001, min(timeout or self.seconds, deadline - time.monotonic()))
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
                return DeadlineStream(stream, deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                trouble = error
        raise trouble

    def _look_up(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, within the seconds of the whole exchange.

        A resolver cannot be interrupted, so it is asked in a thread of its own, which is left to its own time-out.
        """
        answer: Queue[Sequence[str] | Exception] = Queue(1)
        threading.Thread(target=self._ask, args=(host, port, answer), name="look-up", daemon=True).start()
        try:
            found = answer.get(timeout=self.seconds)
        except Empty:
            raise httpcore2.ConnectTimeout("the name's look-up takes too long") from None
        if isinstance(found, OSError | UnicodeError):
            raise httpcore2.ConnectError(f"the name cannot be looked up: {found}") from found
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, host: str, port: int, answer: Queue[Sequence[str] | Exception]) -> None:
        try:
            answer.put(self._resolve(host, port))
        except Exception as error:
            answer.put(error)

    def sleep(self, seconds: float) -> None:
        """As the interface asks; nothing here waits."""
        self._sockets.sleep(seconds)
