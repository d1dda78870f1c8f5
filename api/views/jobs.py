"""`/v1/jobs`: submit, read, wait, cancel; `jobs_batch.py` has the batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from itertools import islice

from flask import Response, request
from flask_openapi3.types import ResponseDict

from api import visible_jobs
from api.current import owner, services
from api.http.blueprints import StrictBlueprint, submits_jobs
from api.parameters import MAX_IDS, JobPath, ListQuery, NewJobPath, SubmitHeaders, WaitHeader, WaitQuery
from api.presenter import job_resource, job_response, json_response, url_of
from api.schemas import ErrorResponse, JobList, JobResource, SubmitJob
from api.streaming import MIMETYPE as EVENTS
from api.submission import submit
from api.views.events import event_stream
from promptq.contract.errors import InvalidRequest, RedisUnavailable
from promptq.contract.job import Job, Status
from promptq.queue.store import Submitted

DEAD_HORIZON = 1000
"""How many of the latest dead jobs the list looks through."""
JSON = "application/json"
_SUBMITTED: ResponseDict = {
    200: JobResource, 202: JobResource, 400: ErrorResponse, 413: ErrorResponse, 422: ErrorResponse,
    429: ErrorResponse, 503: ErrorResponse,
}  # fmt: skip
_FOUND: ResponseDict = {200: JobResource, 404: ErrorResponse, 503: ErrorResponse}

blueprint = StrictBlueprint("jobs", __name__, tag="jobs", url_prefix="/v1/jobs")


@blueprint.post("", responses=_SUBMITTED)
@submits_jobs
def submit_job(header: SubmitHeaders, body: SubmitJob) -> Response:
    """Submit a prompt

    202 with the job, at once; 200 when it ended within `Prefer: wait=N` or came from the cache. With
    `Accept: text/event-stream` the response is the job's events.
    """
    return _response(submit(body, idempotency_key=header.idempotency_key, webhook=body.webhook), header.prefer_wait)


@blueprint.put("/<id>", responses=_SUBMITTED)
@submits_jobs
def put_job(header: WaitHeader, path: NewJobPath, body: SubmitJob) -> Response:
    """Submit a prompt under your own id

    The same body again gives the same job; another body under the same id is refused.
    """
    return _response(submit(body, job_id=path.id, webhook=body.webhook), header.prefer_wait)


@blueprint.get("/<id>", responses=_FOUND | {422: ErrorResponse})
def read_job(path: JobPath, query: WaitQuery) -> Response:
    """Read a job, or wait for its end

    While it is queued, `waiting` says what is ahead of it, who is there for it or coming, and how long it will take.
    """
    job = visible_jobs.wait_for(path.id, query.wait)
    return job_response(job, HTTPStatus.OK, visible_jobs.wait_of(job))


@blueprint.post("/<id>/cancel", responses=_FOUND | {202: JobResource, 409: ErrorResponse})
def cancel_job(path: JobPath) -> Response:
    """Cancel a job

    200: it was waiting and has ended. 202: it runs, and stops within a few tokens.
    """
    visible_jobs.read(path.id)
    status = services().store.cancel(path.id)
    job = visible_jobs.read(path.id)
    return job_response(job, HTTPStatus.OK if status is Status.CANCELLED else HTTPStatus.ACCEPTED)


@blueprint.post("/<id>/retry", responses=_FOUND | {202: JobResource, 409: ErrorResponse, 429: ErrorResponse})
def retry_job(path: JobPath) -> Response:
    """Queue a failed job again, as new"""
    visible_jobs.read(path.id)
    services().store.retry(path.id, weight=services().access.weight(owner()))
    return job_response(visible_jobs.read(path.id), HTTPStatus.ACCEPTED)


@blueprint.get("", responses={200: JobList, 422: ErrorResponse, 503: ErrorResponse})
def list_jobs(query: ListQuery) -> Response:
    """The jobs of these ids, or the dead-letter list: those that failed or expired, the latest first"""
    if query.ids is None:
        found = (job for job in _dead() if job.status == query.status)
        return _list(islice(found, query.limit))
    if query.model_fields_set != {"ids"}:
        raise InvalidRequest("Give either ids, or status and limit.", param="ids")
    ids = list(dict.fromkeys(query.ids.split(",")))
    known = [job for job in visible_jobs.read_many(list(filter(visible_jobs.is_readable_id, ids))) if job]
    return _list(known, sorted(set(ids) - {job.id for job in known}, key=ids.index))


def _list(jobs: Iterable[Job], not_found: Sequence[str] = ()) -> Response:
    return json_response(JobList(jobs=[job_resource(job) for job in jobs], not_found=list(not_found)))


def _dead() -> Iterator[Job]:
    ids = services().observer.dead(DEAD_HORIZON)
    for start in range(0, len(ids), MAX_IDS):
        yield from filter(None, visible_jobs.read_many(ids[start : start + MAX_IDS]))


def _response(submitted: Submitted, prefer_wait: float | None) -> Response:
    if request.accept_mimetypes.best_match([JSON, EVENTS], JSON) == EVENTS:
        response = event_stream(submitted.job.id)
        response.headers["Location"] = url_of(submitted.job)
        return response
    job = _waited(submitted.job, prefer_wait or 0)
    response = job_response(job, HTTPStatus.OK if job.status.is_terminal else HTTPStatus.ACCEPTED)
    response.headers["Location"] = url_of(job)
    if prefer_wait is not None:
        applied = min(prefer_wait, services().settings.wait_limit_seconds)
        response.headers["Preference-Applied"] = f"wait={applied:g}"
    return response


def _waited(job: Job, seconds: float) -> Job:
    """The job after the wait. The client learns its id even if Redis goes away meanwhile."""
    if job.status.is_terminal or not seconds:
        return job
    try:
        return visible_jobs.wait_for(job.id, seconds)
    except RedisUnavailable:
        return job
