"""OpenAI's form of an error, and what its SDKs do about one. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from promptq.contract.errors import IdempotencyConflict

TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
"""What the SDKs try again unless they are told not to, beside 500 and above."""


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
