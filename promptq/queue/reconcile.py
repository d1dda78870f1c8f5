"""Looks for jobs whose place in Redis is lost: queued in no list, running in nobody's hands, joined in no registry.

Our scripts leave none behind. A server that evicts keys does, and so does a hand that deletes one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

from promptq.queue.connection import answering
from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

KEYS_A_STEP = 500
LIVE = (b"queued", b"started", b"deferred")


def reconcile_some(store: JobStore, cursor: int = 0) -> tuple[int, int]:
    """Look at some of the jobs, and put back those whose place is lost.

    Args:
        cursor: where the last step ended; 0 at the beginning.

    Returns:
        Where the next step begins, 0 after the last; and how many jobs were put back.
    """
    with answering():
        found: Any = store.client.scan(cursor, match=store.keys.job("*"), count=KEYS_A_STEP)
        following, keys = found
        lost = _lost(store, keys)
    return int(following), reconcile(store, lost) if lost else 0


def reconcile(store: JobStore, ids: Sequence[str]) -> int:
    """Put these jobs back if their place is lost. Returns how many were."""
    put_back = int(store.scripts.run("reconcile", [store.settings.result_ttl_seconds, *ids]))
    if put_back:
        log.warning("%d jobs were in no list, and are put back: somebody deletes keys, or the server evicts.", put_back)
    return put_back


def _lost(store: JobStore, keys: Sequence[bytes]) -> list[str]:
    """Ids of live jobs that seem to be lost: the script looks closer. So do those that have a lifetime."""
    with store.client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(key, "status", "expires_at")
            pipe.ttl(key)
        replies: list[Any] = pipe.execute(raise_on_error=False)
    rows = zip(keys, replies[::2], replies[1::2], strict=True)
    # A key that is no hash is no job: its reply is an error.
    live = [(key, *row, ttl) for key, row, ttl in rows if isinstance(row, list) and row[0] in LIVE]
    placed, timed = _placed(store) if live else (set(), set())
    ids = ((store.keys.job.suffix_of(key), *row) for key, *row in live)
    return [
        job_id
        for job_id, status, expires_at, ttl in ids
        if ttl >= 0 or job_id not in placed or (expires_at and status != b"started" and job_id not in timed)
    ]


def _placed(store: JobStore) -> tuple[set[str], set[str]]:
    """Ids that are in a list or registry of live jobs, and those whose deadline is noted."""
    keys = store.keys
    with store.client.pipeline(transaction=False) as pipe:
        pipe.zrange(keys.expiry(), 0, -1)
        for name in store.rq_names():
            pipe.lrange(keys.queue(name), 0, -1)
            pipe.zrange(keys.deferred(name), 0, -1)
            pipe.zrange(keys.wip(name), 0, -1)
        timed, *members = pipe.execute()
    return {member.decode().partition(":")[0] for member in chain.from_iterable(members)}, {id.decode() for id in timed}
