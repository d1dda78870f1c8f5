"""A job as the API shows it."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from flask import Response, request
from pydantic import BaseModel

from api.answer import JsonAnswer
from api.schemas import Failure, JobResource, Output, Timings, Urls, Usage
from api.services import services
from promptq.job import Job, to_iso

POLL_SECONDS = 1


def job_answer(job: Job, status: HTTPStatus) -> Response:
    """The job as an answer; while it lives, with the time after which to ask again."""
    response = json_answer(job_resource(job, services().settings.model_id), status)
    if not job.status.is_terminal:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    return response


def json_answer(body: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Any model as a JSON answer."""
    return JsonAnswer(body.model_dump_json(by_alias=True), status.value)


def job_resource(job: Job, model: str) -> JobResource:
    """The job's fields.

    Args:
        model: shown for a job that has no result to name one.
    """
    result = job.result.as_dict() if job.result else {}
    url = url_of(job)
    return JobResource(
        id=job.id,
        status=job.status,
        model=result.get("model", model),
        priority=job.priority,
        created_at=to_iso(job.created_at),
        started_at=iso_or_none(job.started_at),
        finished_at=iso_or_none(job.finished_at),
        attempts=job.attempts,
        queue_position=job.queue_position,
        output=Output(**result["output"]) if result else None,
        usage=Usage(**result["usage"]) if result else None,
        timings=_timings(job),
        cache=job.cache,
        error=Failure(type=job.error.type, message=job.error.message) if job.error else None,
        urls=Urls(self_=url, cancel=f"{url}/cancel"),
    )


def url_of(job: Job) -> str:
    """Where the job is read. Flask's `url_for` would take longer than everything else that is shown of it."""
    return f"{quote(request.root_path)}/v1/jobs/{job.id}"


def iso_or_none(seconds: float | None) -> str | None:
    """ISO-8601, or null for a time that has not come."""
    return None if seconds is None else to_iso(seconds)


def _timings(job: Job) -> Timings:
    """A shared text carries the timings of the run that made it; those are not this job's."""
    if job.cache in ("hit", "join") and job.status.is_terminal:
        return Timings(queue_seconds=_between(job.created_at, job.finished_at), run_seconds=0.0)
    if job.result:
        return Timings(**job.result.as_dict()["timings"])
    return Timings(
        queue_seconds=_between(job.created_at, job.started_at), run_seconds=_between(job.started_at, job.finished_at)
    )


def _between(start: float | None, end: float | None) -> float | None:
    """Clocks of two machines may differ: never less than nothing."""
    return None if start is None or end is None else round(max(0.0, end - start), 6)
