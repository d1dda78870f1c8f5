"""How every program reaches Redis, and what it means when Redis does not answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.contract.redis_errors import explain
from promptq.contract.redis_url import has_sentinels
from promptq.queue.sentinel import connect_by_sentinels, pool_like
from promptq.queue.tls import check_files

ANSWER_SECONDS = 5.0
"""What is waited for an answer, where nobody waits for us."""
LEAST_ANSWER_SECONDS = 1.0
MOST_CONNECTIONS = 2**31
"""None of ours: requests are bounded before. redis-py's own limit is 100, and what comes together beyond it fails."""
_DEMOTED = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
# NOSCRIPT gets here only when a script was forgotten between being loaded and being called, as in a failover.
_UNABLE = (*_DEMOTED, redis.exceptions.NoPermissionError, redis.exceptions.NoScriptError)
# Replies that have no class of their own; in a pipeline the client's words come before the server's.
_REFUSAL = re.compile(r"(?:^|caused error: )(?:DENIED|ACL failure|MISCONF|NOREPLICAS|BUSY|DB index) ")


def connect(url: str, timeout_seconds: float = ANSWER_SECONDS, retries: int = 1) -> redis.Redis:
    """A client for `url`; connections are made when they are needed.

    A lost connection is tried once more at once: every script is safe to repeat. So is one to a server that has been
    made a replica: after a failover the name in `url` may lead to the new primary. A time-out is not: whoever waits
    has waited long enough, and the next call gets a new connection.

    Args:
        timeout_seconds: for connecting and for each answer. A connection on which nothing comes any more breaks no
            call by itself, so there is no way to do without.

    Raises:
        SettingsError: the URL has options that redis-py does not know, or values or files that are none.
    """
    options = {"max_connections": MOST_CONNECTIONS, "retry": _retry(retries)}
    try:
        client = _client(url, timeout_seconds, **options)
    except ValueError as error:
        raise _refusal(str(error)) from None
    _see_options(client.connection_pool)
    return client


def without_retries(client: redis.Redis) -> redis.Redis:
    """A client to the same server that calls once: its caller knows what is to be done when no answer comes."""
    return redis.Redis.from_pool(pool_like(client.connection_pool, retry=_retry(0)))


def _client(url: str, timeout_seconds: float, **options: Any) -> redis.Redis:
    if has_sentinels(url):
        return connect_by_sentinels(url, timeout_seconds, **options)
    timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
    return redis.Redis.from_url(url, **timeouts, **options)


def _retry(retries: int) -> Retry:
    return Retry(NoBackoff(), retries=retries, supported_errors=(redis.ConnectionError, *_DEMOTED))


def seconds_within(lease_seconds: float) -> float:
    """How long whoever holds leases may wait for an answer: one that never comes must leave time to renew them."""
    return max(LEAST_ANSWER_SECONDS, min(ANSWER_SECONDS, lease_seconds / 3))


def _see_options(pool: redis.ConnectionPool) -> None:
    # redis-py looks at them when it makes a connection, which is too late for a clear word; this one stays unconnected.
    try:
        pool.connection_class(**pool.connection_kwargs)
        check_files(pool.connection_kwargs)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        name = f"unknown option {unknown[1]!r}" if unknown else "options that redis-py does not know"
        hint = "; it is for rediss://" if unknown and unknown[1].startswith("ssl_") else ""
        raise _refusal(name + hint) from None
    except (redis.RedisError, ValueError) as error:
        raise _refusal(str(error)) from None


def _refusal(reason: str) -> SettingsError:
    return SettingsError(f"PROMPTQ_REDIS_URL: {reason}", param="PROMPTQ_REDIS_URL")


@contextmanager
def answering() -> Iterator[None]:
    """Turn the ways in which Redis can be away, full, still loading or unwilling into RedisUnavailable.

    An error of our own scripts or commands (ERR, WRONGTYPE) passes through: it is a bug, and no time heals it.
    """
    try:
        yield
    except redis.AuthenticationError as error:
        raise RedisUnavailable("the user or the password is missing or wrong", "refuses") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable(explain(str(error)) or type(error).__name__) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise RedisUnavailable("it is full (maxmemory)", "refuses") from error
    except redis.RedisError as error:
        if isinstance(error, _UNABLE) or _REFUSAL.search(str(error)):
            raise RedisUnavailable(_first_sentence(str(error)), "refuses") from error
        raise


def _first_sentence(text: str) -> str:
    """Of what may be a page of advice."""
    return text.splitlines()[0].partition(". ")[0] if text else "no reason given"
