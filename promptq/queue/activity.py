"""The latest jobs, for the status page. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import redis

from promptq.contract import keys
from promptq.queue.store import answering


def recent(client: redis.Redis, limit: int, now: float, result_ttl_seconds: float) -> list[str]:
    """Ids of jobs that wait, run or have ended: the one submitted last comes first.

    The registries are ordered by when a job is forgotten. Jobs that are kept longer than others (those with an id or an
    idempotency key of the client's) would hide all others, so they are looked up apart.
    """
    live = _live(client, limit)
    ended = _ended(client, limit, now + result_ttl_seconds)
    return _latest(client, [*live, *ended], limit)


def _live(client: redis.Redis, limit: int) -> Iterator[str]:
    with answering(), client.pipeline(transaction=False) as pipe:
        for name in keys.QUEUES:
            pipe.lrange(keys.QUEUE(name), -limit, -1)
            pipe.zrange(keys.DEFERRED(name), 0, limit - 1, desc=True)
            pipe.zrange(keys.WIP(name), 0, limit - 1, desc=True)
        members: Any = chain.from_iterable(pipe.execute())
    return (member.decode().partition(":")[0] for member in members)


def _ended(client: redis.Redis, limit: int, usual_end: float) -> Iterator[str]:
    with answering(), client.pipeline(transaction=False) as pipe:
        for name in keys.QUEUES:
            for registry in (keys.FINISHED(name), keys.CANCELED(name)):
                pipe.zrevrangebyscore(registry, usual_end, "-inf", 0, limit)
                pipe.zrevrangebyscore(registry, "+inf", f"({usual_end}", 0, limit)
            pipe.zrange(keys.FAILED(name), 0, limit - 1, desc=True)
        members: Any = chain.from_iterable(pipe.execute())
    return (member.decode() for member in members)


def _latest(client: redis.Redis, ids: list[str], limit: int) -> list[str]:
    unique = list(dict.fromkeys(ids))
    with answering(), client.pipeline(transaction=False) as pipe:
        for job_id in unique:
            pipe.hget(keys.JOB(job_id), "created_at")
        created: Any = pipe.execute()
    known = [(at, job_id) for at, job_id in zip(created, unique, strict=True) if at]
    return [job_id for _, job_id in sorted(known, reverse=True)[:limit]]
