"""What is done with jobs whose ends are written: they take up the server's memory, and few are asked for again."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.batches.lines import Entry
from promptq.contract.chunks import chunks
from promptq.queue.connection import answering
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.queue.store import JobStore


def forget(store: JobStore, entries: Iterable[Entry]) -> None:
    """Delete the jobs of these lines; those that the cache may answer with are kept as long as that does.

    Raises:
        RedisUnavailable: some are left to their lifetimes.
    """
    seconds = store.settings.cache_ttl_seconds
    shared: list[str] = []
    gone: list[str] = []
    for entry in entries:
        (shared if entry.is_shared and seconds else gone).extend(entry.job_ids)
    for some in chunks(gone, JOBS_PER_SCRIPT):
        store.scripts.run_together([("delete", [job_id]) for job_id in some])
    for some in chunks(shared, JOBS_PER_SCRIPT):
        with answering(), store.client.pipeline(transaction=False) as pipe:
            for job_id in some:
                pipe.expire(store.keys.job(job_id), seconds)
                pipe.expire(store.keys.results(job_id), seconds)
            pipe.execute()
