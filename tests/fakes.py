"""Short ways to make what tests need."""

from __future__ import annotations

from typing import Any

import redis

from promptq.contract import keys
from promptq.contract.job import JobError, Result, Status
from promptq.contract.request import JobRequest
from promptq.queue.store import Claim, Ending, JobStore, NewJob, Submitted

MODEL = "test-model@1:float32"
NOW = 1_800_000_000.0


def new_job(
    prompt: str = "hello", *, job_id: str = "", key: str = "", keep: int | None = None, **fields: Any
) -> NewJob:
    request = JobRequest(prompt=prompt, **fields)
    new = NewJob.create(request, MODEL, idempotency_key=key, keep_seconds=keep)
    return NewJob(job_id, request, MODEL, key, keep) if job_id else new


def submit(store: JobStore, prompt: str = "hello", now: float = NOW, **fields: Any) -> Submitted:
    """Submit a job; with `cache=False` it never joins another one."""
    return store.submit(new_job(prompt, **fields), now)


def success(claim: Claim, text: str = "text") -> Ending:
    return Ending(claim, Status.SUCCEEDED, Result(text, "stop", "test-model", 1, 2, batch_size=3))


def failure(claim: Claim, kind: str = "engine_error") -> Ending:
    return Ending(claim, Status.FAILED, error=JobError(kind, "It broke."))


def cancelled(claim: Claim, text: str = "par") -> Ending:
    return Ending(claim, Status.CANCELLED, Result(text, "cancelled", "test-model", 1, 1))


def with_settings(store: JobStore, **changes: object) -> JobStore:
    return JobStore(store.client, store.settings.model_copy(update=changes))


def places(store: JobStore, job_id: str) -> list[str]:
    """Every list and registry that holds the job."""
    client: redis.Redis = store.client
    found = []
    for queue in keys.QUEUES:
        found += [keys.QUEUE(queue)] * client.lrange(keys.QUEUE(queue), 0, -1).count(job_id.encode())
        for kind in (keys.WIP, keys.DEFERRED, keys.FINISHED, keys.FAILED, keys.CANCELED):
            members = [member.decode().split(":")[0] for member in client.zrange(kind(queue), 0, -1)]
            found += [kind(queue)] * members.count(job_id)
    return found
