"""Pages of the ids of one owner's files or batches, by when they were made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import redis

from promptq.contract.admission import MAX_PARAM_CHARS
from promptq.contract.errors import InvalidRequest
from promptq.queue.connection import answering

READ_AT_ONCE = 100
Order = Literal["asc", "desc"]


def ids_after(client: redis.Redis, key: str, after: str, order: Order) -> Iterator[str]:
    """The ids of a sorted set behind one of them, or all where `after` is empty.

    Raises:
        InvalidRequest: `after` is not among them.
        RedisUnavailable: it does not answer.
    """
    start = _place(client, key, after, order) + 1 if after else 0
    while True:
        with answering():
            found: Any = client.zrange(key, start, start + READ_AT_ONCE - 1, desc=order == "desc")
        yield from (member.decode() for member in found)
        if len(found) < READ_AT_ONCE:
            return
        start += READ_AT_ONCE


def _place(client: redis.Redis, key: str, member: str, order: Order) -> int:
    with answering():
        rank: Any = client.zrank(key, member) if order == "asc" else client.zrevrank(key, member)
    if rank is None:
        raise InvalidRequest(f"{member[:MAX_PARAM_CHARS]!r} is not in this list; it may be gone.", param="after")
    return int(rank)
