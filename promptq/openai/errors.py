"""OpenAI's form of an error, and what its SDKs do about one. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from promptq.contract.errors import IdempotencyConflict, InvalidRequest, ModelNotFound, PromptqError
from promptq.contract.job import Job, JobError, Status

TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
"""What the SDKs try again unless they are told not to, beside 500 and above."""

CALLERS_FAULT = {"prompt_too_long": "messages", "invalid_request": None}
"""Errors of a job that are the request's, and the field that each is about."""
_FAILURES = {
    "timeout": HTTPStatus.GATEWAY_TIMEOUT, "expired": HTTPStatus.SERVICE_UNAVAILABLE,
    "upstream_lost": HTTPStatus.BAD_GATEWAY,
}  # fmt: skip


def failure(job: Job) -> JobError | None:
    """Why a job that has ended has no whole text; None: it has."""
    if job.status is Status.SUCCEEDED and job.result:
        return None
    return job.error or JobError(job.status.value, f"The job ended as {job.status.value}.")


def status_of_failure(error: JobError) -> HTTPStatus:
    """The status of a call whose job has failed."""
    if error.type in CALLERS_FAULT:
        return HTTPStatus.BAD_REQUEST
    return _FAILURES.get(error.type, HTTPStatus.INTERNAL_SERVER_ERROR)


def failure_answer(error: JobError) -> tuple[HTTPStatus, dict[str, Any]]:
    """The status and the body that answer a call whose job has failed."""
    status = status_of_failure(error)
    if error.type in CALLERS_FAULT:
        param = CALLERS_FAULT[error.type]
        return status, {"error": error_fields(status, InvalidRequest.type, error.message, param)}
    return status, {"error": error_fields(status, error.type, error.message)}


def refusal_answer(error: PromptqError) -> tuple[HTTPStatus, dict[str, Any]]:
    """The status and the body that answer a call that no job was made for, because of what it asks."""
    status = HTTPStatus.NOT_FOUND if isinstance(error, ModelNotFound) else HTTPStatus.BAD_REQUEST
    return status, {"error": error_fields(status, error.type, error.message, error.param)}


def status_for(status: HTTPStatus, code: str) -> HTTPStatus:
    """The status on OpenAI's paths: there a wrong field is 400, and a conflict 409."""
    if status is not HTTPStatus.UNPROCESSABLE_ENTITY:
        return status
    return HTTPStatus.CONFLICT if code == IdempotencyConflict.type else HTTPStatus.BAD_REQUEST


def error_fields(status: HTTPStatus, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The error itself; `code` is our own name for it, which does not change."""
    server = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    said = f"{param}: {message}" if param and param not in message else message  # all that the SDK's exception shows
    return {"message": said, "type": TYPES.get(status, server), "param": param, "code": code}


def retry_headers(status: HTTPStatus, seconds: int | None) -> dict[str, str]:
    """Whether and when the SDK is to try again, where it would otherwise decide by itself."""
    if status not in RETRIED and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return {}
    if seconds is None:
        return {"x-should-retry": "false"}
    return {"x-should-retry": "true", "retry-after-ms": str(1000 * seconds)}
