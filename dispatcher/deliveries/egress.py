"""Connections to other people's addresses. The address that is connected to is the one that was checked: a name that
means another one a moment later reaches nothing inside."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httpcore2

from dispatcher.deliveries.deadline import DeadlineStream

PRIVATE: Final = "an address that is not public"
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_EMBEDDING = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]
"""IPv6 networks whose addresses have an IPv4 address in them, which a gateway may reach: NAT64, 6to4, Teredo."""
Resolve = Callable[[str, int], Sequence[str]]


class Forbidden(Exception):
    """The name means an address that nothing may be sent to."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, loopback, link-local, shared, reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _EMBEDDING):
        return False
    if isinstance(ip, ipaddress.IPv4Address) and ip in _SHARED:
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


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
        seconds: that a connection may live.
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
        try:
            addresses = self._resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(f"the name cannot be looked up: {error}") from error
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

    def sleep(self, seconds: float) -> None:
        """As the interface asks; nothing here waits."""
        self._sockets.sleep(seconds)
