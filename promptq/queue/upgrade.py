"""Brings what an earlier version left in Redis into the present form.

Version 0.1 kept a job's `timeout_seconds`, `traceparent` and `request_id` as fields of its hash, and the groups of
identical jobs in two keys. The programs of 0.1 must have been stopped: they would not find what has been moved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import redis
from pydantic import ValidationError

from promptq.contract.call import JobContext, decode_call, encode_call
from promptq.contract.errors import InvalidRequest
from promptq.contract.keys import FORMAT
from promptq.queue.connection import answering
from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

CONTEXT_FIELDS = ("timeout_seconds", "traceparent", "request_id")
LEADERS, JOIN = "promptq:leaders", "promptq:join:"


def upgrade(store: JobStore) -> int:
    """Convert the jobs that wait, run, or have failed and may be retried.

    Every worker does it before its first claim, and the scaler before it reaps; once more changes nothing.

    Returns:
        How many jobs were changed.
    """
    client, keys = store.client, store.keys
    with answering():
        if client.get(keys.format()) == FORMAT.encode():
            return 0
        changed = sum(_move_context(client, keys.job(job_id)) for job_id in set(_live(store)))
        if not store.settings.key_prefix:  # 0.1 knew no prefix: what it left is another deployment's
            _move_groups(client, keys.groups())
        client.set(keys.format(), FORMAT)
    if changed:
        log.info("%d jobs of an earlier version were brought into the present form.", changed)
    return changed


def _live(store: JobStore) -> Iterator[str]:
    client, keys = store.client, store.keys
    for name in store.rq_names():
        members: list[Any] = [
            *client.lrange(keys.queue(name), 0, -1), *client.zrange(keys.deferred(name), 0, -1),
            *client.zrange(keys.wip(name), 0, -1), *client.zrange(keys.failed(name), 0, -1),
        ]  # fmt: skip
        yield from (member.decode().partition(":")[0] for member in members)


def _move_context(client: redis.Redis, key: str) -> bool:
    """From fields of the job's hash into its data. Tells whether there was anything to move."""
    row: Any = client.hmget(key, "data", *CONTEXT_FIELDS)
    data, *values = row
    found = {name: value.decode() for name, value in zip(CONTEXT_FIELDS, values, strict=True) if value}
    if not found or data is None:
        return False
    try:
        kwargs, _ = decode_call(data)
        context = JobContext.model_validate(found)
    except (InvalidRequest, ValidationError) as error:
        log.warning("%s is left as it is: %s", key, error)
        return False  # it will be refused when it is claimed, or runs without what cannot be read
    with client.pipeline() as pipe:
        pipe.hset(key, "data", encode_call(kwargs, context))
        pipe.hdel(key, *CONTEXT_FIELDS)
        pipe.execute()
    return True


def _move_groups(client: redis.Redis, groups: str) -> None:
    """From a hash of leaders, and a list for each group of several, into one hash, in one transaction.

    An API of this version may have made a group for the same request already: its leader then leads both.
    """

    def move(pipe: Any) -> None:
        leaders = pipe.hgetall(LEADERS)
        moved = {}
        for cache_key, leader in leaders.items():
            ids = [leader] if leader else pipe.lrange(JOIN + cache_key.decode(), 0, -1)
            present = pipe.hget(groups, cache_key)
            moved[cache_key] = b" ".join([present, *ids[1:]] if present else ids)
        pipe.multi()
        for cache_key, members in moved.items():
            if members:
                pipe.hset(groups, cache_key, members)
        pipe.delete(LEADERS, *(JOIN + cache_key.decode() for cache_key in leaders))

    client.transaction(move, groups, LEADERS)
