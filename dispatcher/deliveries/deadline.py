"""A connection with one deadline for all that is done with it: who sends a byte now and then holds nobody for long."""

from __future__ import annotations

import ssl
import time
from typing import Any

import httpcore2


class DeadlineStream(httpcore2.NetworkStream):
    """A stream whose reads and writes end at a moment, whatever each of them may take.

    Args:
        deadline: by the monotonic clock, in seconds.
    """

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises httpcore2.ReadTimeout at the deadline."""
        return self._stream.read(max_bytes, self._left(httpcore2.ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises httpcore2.WriteTimeout at the deadline."""
        self._stream.write(buffer, self._left(httpcore2.WriteTimeout, timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Raises httpcore2.ConnectTimeout at the deadline."""
        left = self._left(httpcore2.ConnectTimeout, timeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """As of the stream itself."""
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _left(self, late: type[Exception], timeout: float | None) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise late("its time is over")
        return left if timeout is None else min(left, timeout)
