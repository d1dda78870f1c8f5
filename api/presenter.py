"""A job as the API shows it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel
from pydantic_core import to_json

from api.http.responses import JsonResponse
from api.schemas import JobResource, Timings
from promptq.contract.job import Job, to_iso

POLL_SECONDS = 1
_NO_TIMINGS: dict[str, Any] = dict.fromkeys(Timings.model_fields)


def job_response(job: Job, status: HTTPStatus) -> Response:
    """The job as a response; while it lives, with the time after which to ask again."""
    response = JsonResponse(to_json(job_fields(job)), status.value)
    if not job.status.is_terminal:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    return response


def json_response(body: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Any model as a JSON response."""
    return JsonResponse(body.model_dump_json(by_alias=True), status.value)


def job_resource(job: Job) -> JobResource:
    """The job as a part of an answer."""
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
        "output": result.get("output"),
        "usage": result.get("usage"),
        "timings": _timings(job),
        "cache": job.cache,
        "error": {"type": job.error.type, "message": job.error.message} if job.error else None,
        "urls": {"self": url, "cancel": f"{url}/cancel"},
    }


def url_of(job: Job) -> str:
    """Where the job is read. Flask's `url_for` would take longer than everything else that is shown of it."""
    root = request.environ.get("SCRIPT_NAME", "")
    return f"{quote(root.rstrip('/'))}/v1/jobs/{job.id}" if root else f"/v1/jobs/{job.id}"


def iso_or_none(seconds: float | None) -> str | None:
    """ISO-8601, or null for a time that has not come."""
    return None if seconds is None else to_iso(seconds)


def _timings(job: Job) -> dict[str, Any]:
    """A shared text carries the timings of the run that made it; those are not this job's."""
    if job.cache in ("hit", "join") and job.status.is_terminal:
        return _NO_TIMINGS | {"queue_seconds": _between(job.created_at, job.finished_at), "run_seconds": 0.0}
    if job.result:
        return {**_NO_TIMINGS, **job.result.as_dict()["timings"]}
    queued, ran = _between(job.created_at, job.started_at), _between(job.started_at, job.finished_at)
    return _NO_TIMINGS | {"queue_seconds": queued, "run_seconds": ran}


def _between(start: float | None, end: float | None) -> float | None:
    """Clocks of two machines may differ: never less than nothing."""
    return None if start is None or end is None else round(max(0.0, end - start), 6)
