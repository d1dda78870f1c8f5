"""Which jobs have ended, for those who wait for many of them. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptq.contract.job import read_status
from promptq.queue.connection import answering
from promptq.queue.store import JobStore


def ended(store: JobStore, ids: Sequence[str]) -> list[str]:
    """Those of the jobs that have ended, or are there no more, in one round trip that fetches no text.

    Raises:
        RedisUnavailable: as the store does.
    """
    with answering(), store.client.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.hget(store.keys.job(job_id), "status")
        statuses: Any = pipe.execute()
    return [job_id for job_id, status in zip(ids, statuses, strict=True) if _is_over(status)]


def _is_over(rq_status: bytes | None) -> bool:
    return rq_status is None or read_status(rq_status.decode(), "").is_terminal
