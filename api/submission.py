"""What every way of submitting has in common: limits, the submit, its metrics."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from flask import g, request

from api.access import owner
from api.services import Services, now, services
from promptq import logs
from promptq.errors import IdempotencyConflict, InvalidRequest
from promptq.request import JobRequest
from promptq.store import NewJob, Submitted

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def submit(
    body: JobRequest, *, job_id: str = "", idempotency_key: str = "", max_tokens_param: str = "max_tokens"
) -> Submitted:
    """Hand a job to the queue.

    Args:
        job_id: the client's own id; empty: a fresh one.
        idempotency_key: kept only as a hash.
        max_tokens_param: what the client calls `max_tokens`.
    """
    parts = services()
    _check_limits(body, parts, max_tokens_param)
    try:
        done = parts.store.submit(_new_job(body, job_id, idempotency_key, parts), now())
    except IdempotencyConflict as error:
        error.param = "id" if job_id else "Idempotency-Key"
        raise
    g.acknowledged = True
    logs.add(job_id=done.job.id)
    _count(done, parts)
    return done


def _check_limits(body: JobRequest, parts: Services, max_tokens_param: str) -> None:
    if body.input_chars > parts.settings.max_prompt_chars:
        message = f"The prompt has {body.input_chars} characters; the limit is {parts.settings.max_prompt_chars}."
        raise InvalidRequest(message, param="messages" if body.prompt is None else "prompt")
    if body.max_tokens > parts.settings.max_tokens_limit:
        raise InvalidRequest(f"The limit is {parts.settings.max_tokens_limit}.", param=max_tokens_param)


def _new_job(body: JobRequest, job_id: str, key: str, parts: Services) -> NewJob:
    new = NewJob.create(
        body,
        parts.settings.model_identity,
        idempotency_key=_record(key) if key else "",
        keep_seconds=parts.settings.idempotency_ttl_seconds if job_id or key else None,
        traceparent=_traceparent(),
        owner=owner(),
    )
    return replace(new, id=job_id) if job_id else new


def _record(key: str) -> str:
    """Each owner has Idempotency-Keys of its own."""
    scoped = f"{owner()}\0{key}" if owner() else key
    return hashlib.sha256(scoped.encode()).hexdigest()


def _traceparent() -> str:
    header = request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else ""


def _count(done: Submitted, parts: Services) -> None:
    if done.outcome != "repeat":
        parts.metrics.submitted.labels(done.job.priority, parts.settings.model_id).inc()
        parts.metrics.cache_requests.labels(done.job.cache).inc()
