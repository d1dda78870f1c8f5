"""A line of a batch: the jobs that it asks for, and what is written about its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from dispatcher.batches.models import Models
from promptq.contract import admission, capabilities
from promptq.contract.batch_lines import BadLine, read_line
from promptq.contract.batches import BatchRecord, Kind, job_id, request_id
from promptq.contract.errors import InvalidJson, InvalidRequest, ModelNotFound, PromptqError
from promptq.contract.job import Job
from promptq.contract.queues import Priority
from promptq.contract.request import JobRequest
from promptq.contract.settings import DispatcherSettings
from promptq.openai.calls import Call, read_call
from promptq.openai.errors import failure, failure_answer, refusal_answer
from promptq.queue.records import NewJob

MESSAGES = {
    "expired": "This request could not be executed before the completion window expired.",
    "cancelled": "The batch was cancelled before this request was executed.",
}
REFUSALS = (InvalidRequest, InvalidJson, ModelNotFound)
"""What is wrong with a line; any other error is about something that does not answer now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written about a line, and whether it has its answer.

    Attributes:
        job_ids: of its jobs, which are needed no more once it is written.
        is_shared: the cache may answer others with their texts.
    """

    line: int
    kind: Kind
    text: bytes
    job_ids: tuple[str, ...] = ()
    is_shared: bool = False


@dataclass(slots=True)
class Line:
    """A line whose jobs wait or run.

    Attributes:
        jobs: as they are submitted, and submitted again where Redis has forgotten them.
        live: ids of those that have not ended.
    """

    number: int
    custom_id: str
    call: Call
    jobs: list[NewJob]
    live: set[str] = field(default_factory=set)

    @property
    def ids(self) -> list[str]:
        """Of its jobs."""
        return [job.id for job in self.jobs]

    @property
    def model(self) -> str:
        """All of its jobs' model."""
        return self.jobs[0].model

    @property
    def is_shared(self) -> bool:
        """Whether the cache may answer others with what its jobs give."""
        return self.jobs[0].request.cache and self.jobs[0].request.is_deterministic

    def to_submit(self, priority: Priority, traceparent: str) -> list[NewJob]:
        """The jobs, to be queued with this priority and to be traced below this span."""
        own = {"priority": priority}
        return [replace(job, request=job.request.model_copy(update=own), traceparent=traceparent) for job in self.jobs]


def prepare(batch: BatchRecord, number: int, raw: bytes, settings: DispatcherSettings, models: Models) -> Line | Entry:
    """The jobs of a line; where it cannot be run, what is written about that."""
    try:
        line = read_line(raw)
    except BadLine as bad:  # the input was checked; what is read now is not what was
        return _refused(batch, number, "", InvalidRequest(bad.message, param=bad.param))
    custom_id = line["custom_id"]
    try:
        call = read_call(batch.endpoint, to_json(line["body"]), settings.max_tokens_limit)
        jobs = [_job(batch, number, place, call, settings, models) for place in range(len(call.requests))]
    except REFUSALS as error:
        return _refused(batch, number, custom_id, error)
    return Line(number, custom_id, call, jobs, {job.id for job in jobs})


def _job(
    batch: BatchRecord, number: int, place: int, call: Call, settings: DispatcherSettings, models: Models
) -> NewJob:
    own = {"priority": "low", "ttl_seconds": None}
    try:
        try:
            request = JobRequest.model_validate(call.requests[place] | own)
        except ValidationError as error:
            raise admission.invalid_request(error) from None
        entry, request = admission.resolve(settings.catalogue, request)
        admission.check_limits(request, settings.max_prompt_chars, settings.max_tokens_limit, call.max_tokens_param)
        if (known := models.get(entry.name)) is not None:
            capabilities.check(request, known, entry.name)
        models.check_length(request, entry.name)
    except REFUSALS as error:
        error.param = error.param and call.params.get(error.param.partition(".")[0], error.param)
        raise
    return NewJob(
        job_id(batch, number, place), request, entry.name, entry.identity(settings.dtype),
        keep_seconds=settings.result_ttl_seconds, request_id=request_id(batch, number), owner=batch.owner,
        weight=batch.weight,
    )  # fmt: skip


def ended(batch: BatchRecord, line: Line, jobs: Sequence[Job]) -> Entry:
    """What is written about a line, all of whose jobs have ended."""
    ids = tuple(line.ids)
    for job in jobs:
        if error := failure(job):
            status, body = failure_answer(error)
            return Entry(line.number, "error", _answered(batch, line.number, line.custom_id, status, body), ids)
    body = line.call.answer(jobs, [job.result for job in jobs if job.result])
    return Entry(line.number, "output", _answered(batch, line.number, line.custom_id, 200, body), ids, line.is_shared)


def unfinished(batch: BatchRecord, number: int, custom_id: str, ids: Sequence[str] = ()) -> Entry:
    """What is written about a line that has not ended when its batch does."""
    error = {"code": f"batch_{batch.closing}", "message": MESSAGES[batch.closing]}
    return Entry(number, "error", _text(batch, number, custom_id, None, error), tuple(ids))


def _refused(batch: BatchRecord, number: int, custom_id: str, error: PromptqError) -> Entry:
    status, body = refusal_answer(error)
    return Entry(number, "error", _answered(batch, number, custom_id, status, body))


def _answered(batch: BatchRecord, number: int, custom_id: str, status: int, body: dict[str, Any]) -> bytes:
    response = {"status_code": int(status), "request_id": request_id(batch, number), "body": body}
    return _text(batch, number, custom_id, response, None)


def _text(
    batch: BatchRecord, number: int, custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> bytes:
    fields = {"id": request_id(batch, number), "custom_id": custom_id, "response": response, "error": error}
    return to_json(fields) + b"\n"


def number_of(batch: BatchRecord, entry_id: str) -> int:
    """The number of the line that an entry of this batch is about, by the entry's id."""
    return int(entry_id.removeprefix(request_id(batch, 0)[:-1]))
