"""What happens around every request: its id, its metrics, its line in the log."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from api.services import services
from promptq import logs

log = logging.getLogger(__name__)

UNKNOWN_ROUTE = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SUBMITS = frozenset(
    {("POST", "/v1/jobs"), ("POST", "/v1/jobs:batch"), ("PUT", "/v1/jobs/<id>"), ("POST", "/generate")}
)
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def register(app: Flask) -> None:
    """Instrument every request of `app`."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_leave)


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    logs.begin(request_id=g.request_id)
    g.started = time.perf_counter()
    services().metrics.in_progress.inc()


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.started
    # Only names from short lists become labels: a client must not be able to make new ones.
    method = request.method if request.method in _METHODS else "OTHER"
    route = request.url_rule.rule if request.url_rule else UNKNOWN_ROUTE
    metrics = services().metrics
    metrics.requests.labels(method, route, response.status_code).inc()
    metrics.request_duration.labels(method, route).observe(seconds)
    if "error_type" in g and "acknowledged" not in g and (method, route) in _SUBMITS:
        metrics.rejected.labels(g.error_type).inc()
    response.headers["X-Request-ID"] = g.request_id
    log.debug("%s %s %d %.3f s", method, request.path, response.status_code, seconds)
    return response


def _leave(_error: BaseException | None) -> None:
    services().metrics.in_progress.dec()
