"""Calls whose caller waits: one who goes away takes the job with it.

Where there is an `Idempotency-Key`, others may wait for the same job, and the caller may come back for it: it stays.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from api import visible_jobs
from api.current import client_has_left, services
from api.errors import Overloaded, RunFailed
from api.streaming import Manner, told
from api.submission import read_request, submit, submit_many
from api.waiting.streams import View
from promptq.contract.errors import InvalidRequest, JobAlreadyTerminal, JobNotFound, PromptqError, RedisUnavailable
from promptq.contract.job import Job, JobError, Result, Status
from promptq.contract.logprobs import TokenLogprob
from promptq.openai.errors import CALLERS_FAULT, failure, status_of_failure

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How soon a client that has gone away is noticed, and its row stopped."""
# Without the blank line that would end an event: OpenAI's Python SDK takes an event without data for broken.
_KEEP_ALIVE = ": ping\n"
_ENDS = "This process of the API ends; send the request again."
_LOST = "The engine lost the text, and cannot go on in it."
_GONE = "The job is there no more."


class Form(Protocol):
    """One of OpenAI's forms of a stream; each part gives what was not told yet.

    Attributes:
        told: characters of text that were told.
    """

    @property
    def told(self) -> int: ...

    def begin(self) -> Iterator[str]:
        """What comes before the job runs."""
        ...

    def text(self, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[str]:
        """What comes up to this text, whose tokens have these log probabilities where they were asked for."""
        ...

    def end(self, job: Job) -> Iterator[str]:
        """What comes after all text, for a job that has ended, well or not."""
        ...

    def error(self, code: str, message: str) -> str:
        """What ends a stream that cannot go on."""
        ...


def submit_all(
    requests: Sequence[dict[str, Any]], idempotency_key: str, max_tokens_param: str = "max_tokens"
) -> list[Job]:
    """A job for each request: all, or none.

    Args:
        requests: each one's fields.
        max_tokens_param: what the client calls `max_tokens`.

    Raises:
        PromptqError: one of them was refused.
    """
    if len(requests) == 1:
        request = read_request(requests[0])
        return [submit(request, idempotency_key=idempotency_key, max_tokens_param=max_tokens_param).job]
    done = submit_many(requests, idempotency_key, max_tokens_param)
    refused = [one for one in done if isinstance(one, PromptqError)]
    jobs = [one.job for one in done if not isinstance(one, PromptqError)]
    if refused:
        for job in jobs:
            cancel(job.id)
        raise refused[0]
    return jobs


def results(jobs: Sequence[Job], *, stays: bool) -> list[Result]:
    """The texts of some jobs, once all have ended. If one has none, nobody waits for the others any more.

    Args:
        stays: as for `ended`.

    Raises:
        PromptqError: one has none, or not in time.
    """
    try:
        return [result(job, stays=stays) for job in jobs]
    except Exception:
        for job in () if stays else jobs:
            cancel(job.id)
        raise


def result(job: Job, *, stays: bool) -> Result:
    """The text of a job, once it has ended.

    Args:
        stays: as for `ended`.

    Raises:
        PromptqError: there is none, or not in time.
    """
    job = ended(job, stays=stays)
    if error := failure(job):
        raise _failed(error)
    assert job.result
    return job.result


def ended(job: Job, *, stays: bool) -> Job:
    """The job at its end, whatever that is.

    Args:
        stays: the job goes on when nobody waits for it here any more; else it is cancelled then.

    Raises:
        PromptqError: it has not ended in time.
    """
    if job.status.is_terminal:
        return job
    parts = services()
    seconds = parts.settings.foreground_timeout_seconds
    try:
        job = parts.waiters.wait_for(job.id, seconds, visible_jobs.read, client_has_left, LOOK_SECONDS)
    finally:
        if not (stays or job.status.is_terminal):
            cancel(job.id)
    if job.status.is_terminal:
        return job
    if parts.streams.drained.is_set():
        raise Overloaded(_ENDS)
    raise RunFailed("timeout", f"The text was not there within {seconds:g} s.", HTTPStatus.GATEWAY_TIMEOUT)


def stream(forms: Mapping[str, Form], *, stays: bool = False) -> Iterator[str]:
    """The texts of some jobs as they come, until all have ended, or one has failed.

    Args:
        forms: by job, how it is told.
        stays: the jobs go on when their client goes away.
    """
    first, *_ = forms.values()
    tellings = {job_id: _Telling(form) for job_id, form in forms.items()}
    manner = Manner(_KEEP_ALIVE, lambda: first.error("shutting_down", _ENDS), LOOK_SECONDS)
    try:
        for said in told(tellings, manner):
            yield said
            if any(telling.is_broken for telling in tellings.values()):
                return
    finally:
        for job_id in [job_id for job_id, telling in tellings.items() if not (telling.is_over or stays)]:
            cancel(job_id)


def cancel(job_id: str) -> None:
    """Stop a job that nobody waits for any more."""
    try:
        with contextlib.suppress(JobAlreadyTerminal, JobNotFound):
            services().store.cancel(job_id)
    except RedisUnavailable as error:
        log.warning("Job %s, which nobody waits for, goes on: %s", job_id, error)


@dataclass(slots=True)
class _Telling:
    """What one stream has told of its job.

    Attributes:
        resets: how often the text had started over when it was told last; None: it was not told yet.
        is_over: nothing of the job will change any more.
        is_broken: what was told cannot be gone on with.
    """

    form: Form
    resets: int | None = None
    is_over: bool = False
    is_broken: bool = False

    def __call__(self, view: View) -> str:
        if self.is_over:
            return ""
        self.is_over = view.is_over
        is_lost = self.form.told > 0 and self.resets not in (None, view.resets)
        self.is_broken = is_lost or (view.job is not None and failure(view.job) is not None)
        self.resets = view.resets
        return self.form.error("started_over", _LOST) if is_lost else "".join(self._told(view))

    def _told(self, view: View) -> Iterator[str]:
        yield from self.form.begin()
        if view.status is not Status.QUEUED or view.text:
            yield from self.form.text(view.text, view.logprobs)
        if view.job:
            yield from self.form.end(view.job)
        elif view.is_over:
            yield self.form.error("job_not_found", _GONE)


def _failed(error: JobError) -> PromptqError:
    if error.type in CALLERS_FAULT:
        return InvalidRequest(error.message, param=CALLERS_FAULT[error.type])
    return RunFailed(error.type, error.message, status_of_failure(error))
