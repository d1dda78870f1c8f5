"""How every program reaches Redis, and what it means when Redis does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptq.errors import RedisUnavailable

CONNECT_SECONDS = 5.0


def connect(url: str, timeout_seconds: float | None = 5.0, ping_seconds: int = 0) -> redis.Redis:
    """A client for `url`; connections are made when they are needed.

    A lost connection is tried once more at once: every script is safe to repeat.

    Args:
        timeout_seconds: for connecting and for each answer; None waits for ever (subscriptions).
        ping_seconds: check a connection that was idle this long before it is used; 0: never.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds or CONNECT_SECONDS,
        health_check_interval=ping_seconds,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
    )


@contextmanager
def answering() -> Iterator[None]:
    """Turn the ways in which Redis can be away, full or still loading into RedisUnavailable."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError) as error:
        raise RedisUnavailable(str(error) or type(error).__name__) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise RedisUnavailable("it is full (maxmemory)") from error
