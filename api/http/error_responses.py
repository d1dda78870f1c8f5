"""Turns every error into a response: one form of body for all of them."""

from __future__ import annotations

import logging
from http import HTTPStatus

from flask import Flask, Response, g, request
from pydantic_core import to_json
from werkzeug.exceptions import HTTPException

from api.current import request_id, services
from api.errors import NoText, Unauthorized, retry_after, status_of
from api.http.blueprints import is_submit, speaks_openai
from api.http.responses import JsonResponse
from api.schemas import ErrorDetail, ErrorResponse
from promptq.contract.errors import PromptqError
from promptq.openai import errors as openai_errors

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Handle every error of `app`."""
    app.register_error_handler(PromptqError, _on_promptq_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_bug)


def count_refusal(kind: str) -> None:
    """Count the error of a submit that was not acknowledged; other errors are counted by their response's status."""
    if "acknowledged" not in g and is_submit():
        services().submit_metrics.refuse(kind)


def _on_promptq_error(error: PromptqError) -> Response:
    status = status_of(error)
    if status is None:
        return _on_bug(error)
    job_id = error.job_id if isinstance(error, NoText) else None
    response = _response(status, error.type, error.message, error.param, job_id)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    seconds = retry_after(error)
    if seconds:
        response.headers["Retry-After"] = str(seconds)
    if speaks_openai():
        response.headers.update(openai_errors.retry_headers(HTTPStatus(response.status_code), seconds))
    return response


def _on_http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    response = _response(status, status.name.lower(), error.description or status.phrase)
    if allow := error.get_response().headers.get("Allow"):
        response.headers["Allow"] = allow
    return response


def _on_bug(error: Exception) -> Response:
    log.error("Request %s %s %s failed", request_id(), request.method, request.path, exc_info=error)
    message = f"The server failed; its log has more under request id {request_id()}."
    return _response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message)


def _response(
    status: HTTPStatus, kind: str, message: str, param: str | None = None, job_id: str | None = None
) -> Response:
    count_refusal(kind)
    if speaks_openai():
        status = openai_errors.status_for(status, kind)
        return JsonResponse(to_json({"error": openai_errors.error_fields(status, kind, message, param)}), status)
    detail = ErrorDetail(type=kind, message=message, param=param, job_id=job_id)
    body = ErrorResponse(error=detail).model_dump_json(exclude=None if job_id else {"error": {"job_id"}})
    return JsonResponse(body, status)
