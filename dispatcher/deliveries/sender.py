"""Sends one event once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final

import httpcore2

from dispatcher.deliveries.egress import CheckedBackend, Forbidden
from dispatcher.deliveries.plan import Answer

AGENT: Final = (b"user-agent", b"promptq")


def send(url: str, headers: Mapping[str, str], body: bytes, backend: CheckedBackend) -> Answer:
    """POST an event to an address, on a connection of its own. No redirect is followed, and no proxy is used.

    The response's body is not read.
    """
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        with (
            httpcore2.ConnectionPool(_trusted(), network_backend=backend) as connections,
            connections.stream("POST", url, headers=[*fields, AGENT], content=body) as response,
        ):
            found = {name.lower(): value for name, value in response.headers}
            return Answer(response.status, _seconds(found.get(b"retry-after", b"")))
    except Forbidden as error:
        return Answer(trouble=f"The address is not allowed: {error}.")
    except httpcore2.TimeoutException:
        return Answer(trouble=f"No response within {backend.seconds:g} s.")
    except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, UnicodeError) as error:
        return Answer(trouble=f"No response: {type(error).__name__}.")


@cache
def _trusted() -> ssl.SSLContext:
    """Who is trusted to be whom. Made once: the certificates take long to read."""
    return ssl.create_default_context()


def _seconds(retry_after: bytes) -> float:
    """What a Retry-After asks for, as seconds or as a date; 0 for nonsense."""
    text = retry_after.decode("ascii", "replace").strip()
    if text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
