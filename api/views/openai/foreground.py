"""Calls whose caller waits: one who goes away takes the job with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from api import visible_jobs
from api.current import client_has_left, services
from api.errors import Overloaded, RunFailed
from api.openai.answers import Chunks, error_event, failure
from api.openai.errors import error_fields
from api.streaming import Manner, told
from api.waiting.streams import View
from promptq.contract.errors import InvalidRequest, JobAlreadyTerminal, JobNotFound, PromptqError, RedisUnavailable
from promptq.contract.job import Job, JobError, Result

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How soon a client that has gone away is noticed, and its row stopped."""
_ENDS = "This process of the API ends; send the request again."
_STATUSES = {
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "expired": HTTPStatus.SERVICE_UNAVAILABLE,
    "prompt_too_long": HTTPStatus.BAD_REQUEST,
    "invalid_request": HTTPStatus.BAD_REQUEST,
}
_CALLERS_FAULT = {"prompt_too_long": "messages", "invalid_request": None}
"""Errors of a job that are the request's, and the field that each is about."""
_STARTED_OVER = error_event(
    error_fields(HTTPStatus.INTERNAL_SERVER_ERROR, "started_over", "The engine lost the text, and cannot go on in it.")
)
# A comment without the blank line that would end an event: OpenAI's Python SDK takes an event without data for broken.
_MANNER = Manner(
    ": ping\n",
    error_event(error_fields(HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", _ENDS)),
    LOOK_SECONDS,
)


def result(job: Job) -> tuple[Job, Result]:
    """The job once it has ended, and its text.

    Raises:
        PromptqError: there is none, or not in time; the job has been cancelled if it could be.
    """
    job = _ended(job)
    if error := failure(job):
        raise _failed(error)
    assert job.result
    return job, job.result


def chunks(job: Job, so_far: Chunks) -> Iterator[str]:
    """A job's text in chunks as it comes."""
    telling = _Telling(so_far)
    try:
        for said in told(job.id, telling, _MANNER):
            yield said
            if telling.is_broken:
                return
    finally:
        if not telling.is_over:
            cancel(job.id)


@dataclass(slots=True)
class _Telling:
    """What one stream has told of its job.

    Attributes:
        resets: how often the text had started over when it began; None: it has not begun.
        is_over: nothing of the job will change any more.
        is_broken: what was told cannot be gone on with.
    """

    so_far: Chunks
    resets: int | None = None
    is_over: bool = False
    is_broken: bool = False

    def __call__(self, view: View) -> str:
        self.is_over = view.is_over
        self.is_broken = self.so_far.told > 0 and view.resets != self.resets
        self.resets = view.resets
        return _STARTED_OVER if self.is_broken else "".join(self._told(view))

    def _told(self, view: View) -> Iterator[str]:
        yield from self.so_far.text(view.text)
        if not view.is_over:
            return
        error = failure(view.job) if view.job else JobError("job_not_found", "The job is there no more.")
        if error:
            yield error_event(error_fields(_status(error), error.type, error.message))
        elif view.job and view.job.result:
            yield from self.so_far.end(view.job.result)


def cancel(job_id: str) -> None:
    """Stop a job that nobody waits for any more."""
    try:
        with contextlib.suppress(JobAlreadyTerminal, JobNotFound):
            services().store.cancel(job_id)
    except RedisUnavailable as error:
        log.warning("Job %s, which nobody waits for, goes on: %s", job_id, error)


def _ended(job: Job) -> Job:
    """The job at its end; it is cancelled where nobody waits for that any more."""
    if job.status.is_terminal:
        return job
    parts = services()
    seconds = parts.settings.foreground_timeout_seconds
    try:
        job = parts.waiters.wait_for(job.id, seconds, visible_jobs.read, client_has_left, LOOK_SECONDS)
    except BaseException:
        cancel(job.id)
        raise
    if not job.status.is_terminal:
        cancel(job.id)
        if parts.streams.drained.is_set():
            raise Overloaded(_ENDS)
        raise RunFailed("timeout", f"The text was not there within {seconds:g} s.", HTTPStatus.GATEWAY_TIMEOUT)
    return job


def _failed(error: JobError) -> PromptqError:
    if error.type in _CALLERS_FAULT:
        return InvalidRequest(error.message, param=_CALLERS_FAULT[error.type])
    return RunFailed(error.type, error.message, _status(error))


def _status(error: JobError) -> HTTPStatus:
    return _STATUSES.get(error.type, HTTPStatus.INTERNAL_SERVER_ERROR)
