"""A job as the API shows it."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel
from pydantic_core import to_json

from api.http.responses import JsonResponse
from api.schemas import JobResource, Timings
from promptq.contract.job import Job, to_iso
from promptq.queue.expected_wait import Wait

POLL_SECONDS = 1
_NO_TIMINGS: dict[str, Any] = dict.fromkeys(Timings.model_fields)


def job_response(job: Job, status: HTTPStatus, wait: Wait | None = None) -> Response:
    """The job as a response; until it has ended, `Retry-After` says when to ask again."""
    fields = job_fields(job) | {"waiting": asdict(wait) if wait else None}
    response = JsonResponse(to_json(fields), status.value)
    if not job.status.is_terminal:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    return response


def json_response(body: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Any model as a JSON response."""
    return JsonResponse(body.model_dump_json(by_alias=True), status.value)


def job_resource(job: Job) -> JobResource:
    """The job as a part of a response."""
    return JobResource.model_validate(job_fields(job))


def job_fields(job: Job) -> dict[str, Any]:
    """The fields of a `JobResource`, not checked once more: they are our own values."""
    result = job.result.as_dict() if job.result else {}
    url = url_of(job)
    return {
        "id": job.id,
        "status": job.status.value,
        "model": result.get("model", job.queue.model),
        "priority": job.priority,
        "created_at": to_iso(job.created_at),
        "started_at": iso_or_none(job.started_at),
        "finished_at": iso_or_none(job.finished_at),
        "attempts": job.attempts,
        "queue_position": job.queue_position,
        "waiting": None,
        "output": result.get("output"),
        "usage": result.get("usage"),
        "timings": _timings(job),
        "cache": job.cache,
        "error": {"type": job.error.type, "message": job.error.message} if job.error else None,
        "urls": {"self": url, "cancel": f"{url}/cancel"},
    }


def url_of(job: Job) -> str:
    """The path under which the job is read, with the prefix that the application is mounted under.

    Written out, because Flask's `url_for` is slow where many jobs are listed.
    """
    root = request.environ.get("SCRIPT_NAME", "")
    return f"{quote(root.rstrip('/'))}/v1/jobs/{job.id}" if root else f"/v1/jobs/{job.id}"


def iso_or_none(seconds: float | None) -> str | None:
    """ISO-8601; None for a time that has not come yet."""
    return None if seconds is None else to_iso(seconds)


def _timings(job: Job) -> dict[str, Any]:
    """A job that took another one's text ran nothing: the timings in its result are those of the other one's run."""
    if job.cache in ("hit", "join") and job.status.is_terminal:
        return _NO_TIMINGS | {"queue_seconds": _between(job.created_at, job.finished_at), "run_seconds": 0.0}
    if job.result:
        return {**_NO_TIMINGS, **job.result.as_dict()["timings"]}
    queued, ran = _between(job.created_at, job.started_at), _between(job.started_at, job.finished_at)
    return _NO_TIMINGS | {"queue_seconds": queued, "run_seconds": ran}


def _between(start: float | None, end: float | None) -> float | None:
    """Seconds, never below 0: the two times may come from the clocks of two machines."""
    return None if start is None or end is None else round(max(0.0, end - start), 6)
