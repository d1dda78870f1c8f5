"""Short ways to make what tests need."""

from __future__ import annotations

from typing import Any

from promptq.job import JobError, Result, Status
from promptq.request import JobRequest
from promptq.store import Claim, Ending, JobStore, NewJob, Submitted

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
