"""Clients of a server whose place the Sentinels tell: each new connection asks them, so it leads to the primary."""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from promptq.contract.redis_url import one_by_one

PORT: Final = 26379
OWN_SHARE: Final = 0.5
"""Of the time that a connection may take: so one Sentinel that is silent leaves time to ask another."""


def connect_by_sentinels(url: str, timeout_seconds: float, **options: Any) -> redis.Redis:
    """A client of the service's primary.

    Args:
        timeout_seconds: for connecting to the server, and for each answer.
        options: as `redis.ConnectionPool` takes them.

    Raises:
        ValueError: an option of the URL has a value that is none.
    """
    found: list[dict[str, Any]] = [parse_url(each) for each in one_by_one(url)]
    hosts = [(each.pop("host"), each.pop("port", PORT)) for each in found]
    server = found[0]
    own = {"username": server.pop("sentinel_username", None), "password": server.pop("sentinel_password", None)}
    tls = {name: value for name, value in server.items() if name.startswith("ssl_")}
    if server.pop("connection_class", None) is SSLConnection:
        server["ssl"] = own["ssl"] = True
    seconds = timeout_seconds * OWN_SHARE
    own |= {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), retries=0)}
    service = server.pop("service")
    sentinels = Sentinel(hosts, sentinel_kwargs=own | tls)
    timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
    return redis.Redis.from_pool(SentinelConnectionPool(service, sentinels, **timeouts | options | server))


def pool_like(pool: redis.ConnectionPool, **changes: Any) -> redis.ConnectionPool:
    """A pool of connections to the same server, with other options."""
    options = pool.connection_kwargs | changes
    given = {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    if not isinstance(pool, SentinelConnectionPool):
        return redis.ConnectionPool(**given, **options)
    options.pop("connection_pool")  # the other pool's own, by which it learns of a new primary
    return SentinelConnectionPool(pool.service_name, pool.sentinel_manager, **given, **options)
