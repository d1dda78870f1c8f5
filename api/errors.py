"""The API's own errors, and what every error is in HTTP: its status and when to try again."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from promptq.contract.admission import MAX_PARAM_CHARS
from promptq.contract.errors import (
    EventsBehind,
    IdempotencyConflict,
    InvalidJson,
    InvalidRequest,
    JobAlreadyTerminal,
    JobNotFailed,
    JobNotFound,
    ModelNotFound,
    PromptqError,
    QueueFull,
    RedisUnavailable,
    WorkerNotFound,
)
from promptq.storage.storage import ObjectMissing, StorageUnavailable

RETRY_SECONDS = 1


class UnreadableBody(PromptqError):
    """The body is incomplete, or its chunks are malformed."""

    type = "unreadable_body"


class SlowBody(PromptqError):
    """The body has not arrived within its time."""

    type = "slow_body"


class BodyTooLarge(PromptqError):
    """The body is larger than the limit."""

    type = "body_too_large"


class UnsupportedEncoding(PromptqError):
    """The body is compressed; only uncompressed bodies are read."""

    type = "unsupported_media_type"


class NoText(PromptqError):
    """A synchronous call has a job, but no text to answer with."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"Job {job_id} {reason}")
        self.job_id = job_id


class JobUnfinished(NoText):
    """The call waited as long as it may; the job goes on."""

    type = "generate_timeout"


class JobFailed(NoText):
    """The job ended without a text."""

    type = "job_failed"


class ResponseNotFound(PromptqError):
    """No such response, or it is another key's."""

    type = "response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(
            f"No response with id {response_id[:MAX_PARAM_CHARS]!r}; it never existed, or is gone.", param="id"
        )


class FileMissing(PromptqError):
    """No such file, or it is another key's."""

    type = "file_not_found"

    def __init__(self, file_id: str, param: str = "id") -> None:
        super().__init__(f"No file with id {file_id[:MAX_PARAM_CHARS]!r}; it never existed, or is gone.", param=param)


class FileInUse(PromptqError):
    """A batch that has not ended reads or writes the file."""

    type = "file_in_use"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"A batch that has not ended needs the file {file_id}.", param="id")


class BatchNotFound(PromptqError):
    """No such batch, or it is another key's."""

    type = "batch_not_found"

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"No batch with id {batch_id[:MAX_PARAM_CHARS]!r}; it never existed, or is gone.", param="id")


class BatchNotReady(PromptqError):
    """The batch is in a state in which this cannot be done with it."""

    type = "batch_state"


class WebhookMissing(PromptqError):
    """No such webhook endpoint or delivery, or it is another key's."""

    type = "webhook_not_found"

    def __init__(self, what: str, missing_id: str, param: str = "id") -> None:
        super().__init__(
            f"No {what} with id {missing_id[:MAX_PARAM_CHARS]!r}; it never existed, or is gone.", param=param
        )


class WebhookConflict(PromptqError):
    """The endpoints of the key, or the endpoint, are in a state in which this cannot be done."""

    type = "webhook_state"


class RangeNotSatisfiable(PromptqError):
    """The file has no such bytes."""

    type = "range_not_satisfiable"


class RunFailed(PromptqError):
    """The job of a call that waited ended without its text.

    Attributes:
        status: that of the response.
    """

    def __init__(self, kind: str, message: str, status: HTTPStatus) -> None:
        super().__init__(message)
        self.type = kind
        self.status = status


class NotReady(PromptqError):
    """A prompt that is sent now would not be run."""

    type = "not_ready"


class Overloaded(PromptqError):
    """This process has as many open requests as it may."""

    type = "overloaded"


class Unauthorized(PromptqError):
    """No API key, or an unknown one."""

    type = "unauthorized"


class ForeignSite(PromptqError):
    """A browser sends a request for a web page of another site."""

    type = "foreign_site"


class TooManyRequests(PromptqError):
    """An API key is over one of its limits."""

    def __init__(self, kind: str, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.type = kind
        self.retry_after_seconds = retry_after_seconds


STATUSES: Mapping[type[PromptqError], HTTPStatus] = {
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    ForeignSite: HTTPStatus.FORBIDDEN,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    InvalidJson: HTTPStatus.BAD_REQUEST,
    UnreadableBody: HTTPStatus.BAD_REQUEST,
    SlowBody: HTTPStatus.REQUEST_TIMEOUT,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    JobNotFound: HTTPStatus.NOT_FOUND,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    WorkerNotFound: HTTPStatus.NOT_FOUND,
    ResponseNotFound: HTTPStatus.NOT_FOUND,
    FileMissing: HTTPStatus.NOT_FOUND,
    BatchNotFound: HTTPStatus.NOT_FOUND,
    WebhookMissing: HTTPStatus.NOT_FOUND,
    WebhookConflict: HTTPStatus.CONFLICT,
    FileInUse: HTTPStatus.CONFLICT,
    BatchNotReady: HTTPStatus.CONFLICT,
    RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ObjectMissing: HTTPStatus.NOT_FOUND,
    JobAlreadyTerminal: HTTPStatus.CONFLICT,
    JobNotFailed: HTTPStatus.CONFLICT,
    QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    RedisUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    EventsBehind: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    JobFailed: HTTPStatus.BAD_GATEWAY,
    JobUnfinished: HTTPStatus.GATEWAY_TIMEOUT,
}


def status_of(error: PromptqError) -> HTTPStatus | None:
    """The status that answers the error; None for one that no client should ever see."""
    if isinstance(error, RunFailed):
        return error.status
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), None)


def retry_after(error: PromptqError) -> int | None:
    """Seconds after which the same request may be sent again; None where that would not help."""
    if isinstance(error, QueueFull | TooManyRequests):
        return error.retry_after_seconds
    away = RedisUnavailable | StorageUnavailable | NotReady | Overloaded | EventsBehind
    return RETRY_SECONDS if isinstance(error, away) else None
