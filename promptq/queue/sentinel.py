"""Clients of a server whose place the Sentinels tell: each new connection asks them, so it leads to the primary."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
ASK_SECONDS: Final = 1.0
"""So often the Sentinels are asked whether the primary is still the one that we are connected to."""
ASK_AGAIN_SECONDS: Final = 10.0
"""None has answered: whoever asks waits for that, so it is not done as often."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an address of Sentinels names.

    Attributes:
        server: options of connections to the server, as redis-py calls them.
        own: options of connections to the Sentinels.
    """

    hosts: list[tuple[str, int]]
    service: str
    server: dict[str, Any]
    own: dict[str, Any]


class FollowingPool(SentinelConnectionPool):
    """Leaves a primary that has been replaced, and lives on.

    Nothing breaks there: the old primary takes writes until a Sentinel demotes it, and all of them are lost. redis-py
    lets go of connections to it once it hears of another one; by itself it asks for new connections only.
    """

    def __init__(self, service: str, sentinels: Sentinel, **options: Any) -> None:
        self._ask_at = time.monotonic() + ASK_SECONDS
        super().__init__(service, sentinels, **options)  # type: ignore[no-untyped-call]

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection to the primary."""
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS  # whoever comes meanwhile need not ask too
            self._ask(now)
        return super().get_connection(*args, **options)

    def _ask(self, now: float) -> None:
        try:
            self.get_master_address()  # type: ignore[no-untyped-call]
            self._ask_at = now + ASK_SECONDS
        except redis.exceptions.RedisError:
            pass  # the connections that there are may still do


def connect_by_sentinels(url: str, timeout_seconds: float, **options: Any) -> redis.Redis:
    """A client of the service's primary.

    Args:
        timeout_seconds: for connecting to the server, and for each answer.
        options: as `redis.ConnectionPool` takes them.

    Raises:
        ValueError: an option of the URL has a value that is none.
    """
    place = _read(url)
    own = place.own | _timeouts(timeout_seconds * OWN_SHARE) | {"retry": Retry(NoBackoff(), retries=0)}
    server = _timeouts(timeout_seconds) | options | place.server
    sentinels = Sentinel(place.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    return redis.Redis.from_pool(FollowingPool(place.service, sentinels, **server))


def pool_like(pool: redis.ConnectionPool, **changes: Any) -> redis.ConnectionPool:
    """A pool of connections to the same server, with other options."""
    options = pool.connection_kwargs | changes
    options |= {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    if not isinstance(pool, FollowingPool):
        return redis.ConnectionPool(**options)
    options.pop("connection_pool")  # the other pool's own, by which it learns of a new primary
    return FollowingPool(pool.service_name, pool.sentinel_manager, **options)


def _read(url: str) -> Place:
    found: list[dict[str, Any]] = [parse_url(each) for each in one_by_one(url)]  # type: ignore[no-untyped-call]
    hosts = [(each.pop("host"), each.pop("port", PORT)) for each in found]
    server = found[0]
    own = {name: server.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    own |= {name: value for name, value in server.items() if name.startswith("ssl_")}
    if server.pop("connection_class", None) is SSLConnection:
        server["ssl"] = own["ssl"] = True
    return Place(hosts, server.pop("service"), server, own)


def _timeouts(seconds: float) -> dict[str, float]:
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}
