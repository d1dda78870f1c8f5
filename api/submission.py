"""What every way of submitting has in common: limits, the submit, its metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from flask import g
from pydantic import Field, ValidationError

from api.current import owner, request_id, services
from api.parameters import IDEMPOTENCY_KEY
from api.services import Services
from api.submit_metrics import SubmitResult
from api.tracing import submitting
from api.webhook_checks import kept
from promptq.contract.admission import check_limits, invalid_request
from promptq.contract.errors import IdempotencyConflict, InvalidRequest, ModelNotFound, PromptqError, RedisUnavailable
from promptq.contract.job_webhooks import JobWebhook, ResponseWebhook, WebhookJob
from promptq.contract.request import JobRequest
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.queue.store import NewJob, Submitted
from promptq.runtime import failpoints, logs


class KeyedJob(WebhookJob):
    """One prompt of a batch."""

    idempotency_key: Annotated[str, Field(pattern=IDEMPOTENCY_KEY)] = ""


def submit(
    body: JobRequest,
    *,
    job_id: str = "",
    idempotency_key: str = "",
    max_tokens_param: str = "max_tokens",
    response: str = "",
    webhook: JobWebhook | ResponseWebhook | None = None,
) -> Submitted:
    """Hand a job to the queue.

    Args:
        job_id: the client's own id; empty: a fresh one.
        idempotency_key: kept only as a hash.
        max_tokens_param: what the client calls `max_tokens`.
        response: where it is one of OpenAI's responses, what that shows of its request.
        webhook: who is told of its end alone.
    """
    parts = services()
    try:
        own = kept(webhook)
        with submitting() as span:
            new = _new_job(body, job_id, idempotency_key, parts, max_tokens_param, span.traceparent)
            done = parts.submit_batcher.submit(replace(new, response=response, webhook=own))
            span.note({"promptq.job.id": done.job.id, "promptq.outcome": done.outcome})
        failpoints.hit("api.submitted")
    except IdempotencyConflict as error:
        error.param = "id" if job_id else "Idempotency-Key"
        raise
    g.acknowledged = True
    logs.add(job_id=done.job.id)
    return done


def read_request(fields: dict[str, Any]) -> JobRequest:
    """A job's fields, checked.

    Raises:
        InvalidRequest: one of them is wrong.
    """
    try:
        return JobRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error) from None


def submit_many(
    items: Sequence[Any], idempotency_key: str = "", max_tokens_param: str = "max_tokens"
) -> list[SubmitResult]:
    """Hand many jobs to the queue; return for each, in order, the submitted job or why it was refused.

    Args:
        max_tokens_param: what the client calls `max_tokens`.

    Raises:
        RedisUnavailable: none was acknowledged.
    """
    parts = services()
    keys = [f"{idempotency_key}:{place}" if idempotency_key else "" for place in range(len(items))]
    with submitting() as span:
        keyed = zip(items, keys, strict=True)
        read = [_read(item, key, parts, max_tokens_param, span.traceparent) for item, key in keyed]
        admitted = iter(_admit([one for one in read if isinstance(one, NewJob)], parts))
        span.note({"promptq.jobs": len(items)})
    results = [next(admitted) if isinstance(one, NewJob) else one for one in read]
    failpoints.hit("api.many_submitted")
    g.acknowledged = True
    parts.submit_metrics.count(results)
    for kind in (one.type for one in results if isinstance(one, PromptqError)):
        parts.submit_metrics.refuse(kind)
    return results


def _read(item: Any, key: str, parts: Services, max_tokens_param: str, traceparent: str) -> NewJob | PromptqError:
    """One prompt of a batch as a job; its own idempotency key has precedence over the given one."""
    try:
        keyed = KeyedJob.model_validate(item)
        own, key = kept(keyed.webhook), keyed.idempotency_key or key
        return replace(_new_job(keyed, "", key, parts, max_tokens_param, traceparent), webhook=own)
    except ValidationError as error:
        return invalid_request(error)
    except (InvalidRequest, ModelNotFound) as error:
        return error


def _admit(news: Sequence[NewJob], parts: Services) -> list[SubmitResult]:
    """Submit in scripts of a size that leaves Redis free for others soon. What was admitted before Redis went away is
    acknowledged; the rest is not tried."""
    done: list[SubmitResult] = []
    while len(done) < len(news):
        try:
            done += parts.store.submit_many(news[len(done) : len(done) + JOBS_PER_SCRIPT])
        except RedisUnavailable as error:
            if not done:
                raise
            done += [error] * (len(news) - len(done))
    for result in done:
        if isinstance(result, IdempotencyConflict):
            result.param = "idempotency_key"
    return done


def _new_job(
    body: JobRequest, job_id: str, key: str, parts: Services, max_tokens_param: str, traceparent: str
) -> NewJob:
    entry, body = parts.model_checks.resolve(body)
    check_limits(body, parts.settings.max_prompt_chars, parts.settings.max_tokens_limit, max_tokens_param)
    parts.model_checks.check(body, entry.name)
    new = NewJob.create(
        body,
        entry.name,
        entry.identity(parts.settings.dtype),
        idempotency_key=_record(key) if key else "",
        keep_seconds=parts.settings.idempotency_ttl_seconds if job_id or key else None,
        traceparent=traceparent,
        request_id=request_id(),
        owner=owner(),
        weight=parts.access.weight(owner()),
    )
    return replace(new, id=job_id) if job_id else new


def _record(key: str) -> str:
    """Each owner has Idempotency-Keys of its own."""
    scoped = f"{owner()}\0{key}" if owner() else key
    return hashlib.sha256(scoped.encode()).hexdigest()
