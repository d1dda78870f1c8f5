"""Every error as HTTP: the one table of statuses, and the body that all errors share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.http.instrument import count_refusal, request_id
from api.http.responses import JsonResponse
from api.schemas import ErrorDetail, ErrorResponse
from promptq.contract.errors import (
    IdempotencyConflict,
    InvalidRequest,
    JobAlreadyTerminal,
    JobNotFailed,
    JobNotFound,
    PromptqError,
    QueueFull,
    RedisUnavailable,
)

log = logging.getLogger(__name__)

MAX_PARAM_CHARS = 200
REDIS_RETRY_SECONDS = 1


class InvalidJson(PromptqError):
    """The body is not JSON."""

    type = "invalid_json"


class UnreadableBody(PromptqError):
    """The body broke off, or its chunks are not what HTTP says."""

    type = "unreadable_body"


class BodyTooLarge(PromptqError):
    """The body is over the limit."""

    type = "body_too_large"


class UnsupportedEncoding(PromptqError):
    """The body is compressed, and we do not unpack."""

    type = "unsupported_media_type"


class NoText(PromptqError):
    """A synchronous call has a job, and no text to give."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"Job {job_id} {reason}")
        self.job_id = job_id


class JobUnfinished(NoText):
    """It gave up waiting; the job lives on."""

    type = "generate_timeout"


class JobFailed(NoText):
    """The job ended badly."""

    type = "job_failed"


class NotReady(PromptqError):
    """The service cannot answer prompts now."""

    type = "not_ready"


class Unauthorized(PromptqError):
    """No API key, or an unknown one."""

    type = "unauthorized"


class ForeignSite(PromptqError):
    """A web page of another site calls a service that is open to this machine only."""

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
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedEncoding: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    IdempotencyConflict: HTTPStatus.UNPROCESSABLE_ENTITY,
    JobNotFound: HTTPStatus.NOT_FOUND,
    JobAlreadyTerminal: HTTPStatus.CONFLICT,
    JobNotFailed: HTTPStatus.CONFLICT,
    QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    RedisUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    JobFailed: HTTPStatus.BAD_GATEWAY,
    JobUnfinished: HTTPStatus.GATEWAY_TIMEOUT,
}


def register(app: Flask) -> None:
    """Answer every error of `app` in the one form."""
    app.register_error_handler(PromptqError, _on_promptq_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_bug)


def invalid_request(error: ValidationError) -> PromptqError:
    """The first thing that pydantic found wrong, with the field it is about."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidJson(first["msg"], param="body")
    # Only the check over prompt and messages together has no place of its own.
    whole = "prompt" if first["type"] == "value_error" else "body"
    param = ".".join(str(step) for step in first["loc"]) or whole
    return InvalidRequest(first["msg"].removeprefix("Value error, "), param=param[:MAX_PARAM_CHARS])


def _on_promptq_error(error: PromptqError) -> Response:
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        return _on_bug(error)
    job_id = error.job_id if isinstance(error, NoText) else None
    response = _answer(status, error.type, error.message, error.param, job_id)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if seconds := retry_after(error):
        response.headers["Retry-After"] = str(seconds)
    return response


def retry_after(error: PromptqError) -> int | None:
    """Seconds after which the same may be tried again, where that makes sense."""
    if isinstance(error, QueueFull | TooManyRequests):
        return error.retry_after_seconds
    return REDIS_RETRY_SECONDS if isinstance(error, RedisUnavailable | NotReady) else None


def _on_http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    response = _answer(status, status.name.lower(), error.description or status.phrase)
    if allow := error.get_response().headers.get("Allow"):
        response.headers["Allow"] = allow
    return response


def _on_bug(error: Exception) -> Response:
    log.error("Request %s %s %s failed", request_id(), request.method, request.path, exc_info=error)
    message = f"The server failed; its log has more under request id {request_id()}."
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message)


def _answer(
    status: HTTPStatus, kind: str, message: str, param: str | None = None, job_id: str | None = None
) -> Response:
    count_refusal(kind)
    detail = ErrorDetail(type=kind, message=message, param=param, job_id=job_id)
    body = ErrorResponse(error=detail).model_dump_json(exclude=None if job_id else {"error": {"job_id"}})
    return JsonResponse(body, status)
