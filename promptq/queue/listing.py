"""Pages of the ids of one owner's files or batches, by when they were made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import redis

from promptq.queue.connection import answering

READ_AT_ONCE = 100
Order = Literal["asc", "desc"]


def ids_after(client: redis.Redis, key: str, after: str, order: Order) -> Iterator[str]:
    """The ids of a sorted set behind one of them, or all where `after` is empty or not among them.

    Raises:
        RedisUnavailable: it does not answer.
    """
    start = 0
    if after and (place := _place(client, key, after, order)) is not None:
        start = place + 1
    while True:
        with answering():
            found: Any = client.zrange(key, start, start + READ_AT_ONCE - 1, desc=order == "desc")
        yield from (member.decode() for member in found)
        if len(found) < READ_AT_ONCE:
            return
        start += READ_AT_ONCE


def _place(client: redis.Redis, key: str, member: str, order: Order) -> int | None:
    with answering():
        rank: Any = client.zrank(key, member) if order == "asc" else client.zrevrank(key, member)
    return None if rank is None else int(rank)
