"""The latest jobs, for the status page. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from promptq.queue.connection import answering
from promptq.queue.store import JobStore


def recent(store: JobStore, limit: int) -> list[str]:
    """Ids of jobs that wait, run or have ended: the one submitted last comes first.

    The registries are ordered by when a job is forgotten. Jobs that are kept longer than others (those with an id or an
    idempotency key of the client's) would hide all others, so they are looked up apart.
    """
    live = _live(store, limit)
    ended = _ended(store, limit)
    return _latest(store, [*live, *ended], limit)


def _live(store: JobStore, limit: int) -> Iterator[str]:
    keys = store.keys
    with answering(), store.client.pipeline(transaction=False) as pipe:
        for name in store.rq_names():
            # Where keys take turns, what was submitted last may be anywhere, but of a small share it is near the head.
            pipe.lrange(keys.queue(name), 0, limit - 1)
            pipe.lrange(keys.queue(name), -limit, -1)
            pipe.zrange(keys.deferred(name), 0, limit - 1, desc=True)
            pipe.zrange(keys.wip(name), 0, limit - 1, desc=True)
        members: Any = chain.from_iterable(pipe.execute())
    return (member.decode().partition(":")[0] for member in members)


def _ended(store: JobStore, limit: int) -> Iterator[str]:
    keys, usual_end = store.keys, store.now() + store.settings.result_ttl_seconds
    with answering(), store.client.pipeline(transaction=False) as pipe:
        for name in store.rq_names():
            for registry in (keys.finished(name), keys.canceled(name)):
                pipe.zrevrangebyscore(registry, usual_end, "-inf", 0, limit)
                pipe.zrevrangebyscore(registry, "+inf", f"({usual_end}", 0, limit)
            pipe.zrange(keys.failed(name), 0, limit - 1, desc=True)
        members: Any = chain.from_iterable(pipe.execute())
    return (member.decode() for member in members)


def _latest(store: JobStore, ids: list[str], limit: int) -> list[str]:
    unique = list(dict.fromkeys(ids))
    with answering(), store.client.pipeline(transaction=False) as pipe:
        for job_id in unique:
            pipe.hget(store.keys.job(job_id), "created_at")
        created: Any = pipe.execute()
    known = [(at, job_id) for at, job_id in zip(created, unique, strict=True) if at]
    return [job_id for _, job_id in sorted(known, reverse=True)[:limit]]
