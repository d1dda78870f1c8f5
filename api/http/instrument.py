"""What happens around every request: its id, its metrics, its line in the log.

Outside Flask: what must be known of a request anyhow costs there a third of what hooks do.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask, g, request

from api.services import of, services
from promptq.contract.metrics import ApiMetrics
from promptq.runtime import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

UNKNOWN_ROUTE = "unknown"
REQUEST_ID = "promptq.request_id"
"""Where in a request's environment its id is."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SUBMITS = frozenset(
    {("POST", "/v1/jobs"), ("POST", "/v1/jobs:batch"), ("PUT", "/v1/jobs/<id>"), ("POST", "/generate")}
)
_GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")


def register(app: Flask) -> None:
    """Instrument every request of `app`."""
    app.wsgi_app = _instrumented(app.wsgi_app, of(app).metrics)  # type: ignore[assignment, method-assign]


def request_id() -> str:
    """The present request's id: the client's own, or a fresh one."""
    return str(request.environ[REQUEST_ID])


def count_refusal(kind: str) -> None:
    """Count the error of a submit that was not acknowledged; other errors are counted as answers, by their status."""
    if "acknowledged" not in g and (request.method, _route(request.environ)) in _SUBMITS:
        services().submit_metrics.refuse(kind)


def _instrumented(wsgi_app: WSGIApplication, metrics: ApiMetrics) -> WSGIApplication:
    count = _counter(metrics)

    def instrumented(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        environ[REQUEST_ID] = given if _GOOD_ID.fullmatch(given) else secrets.token_hex(16)
        logs.begin(request_id=environ[REQUEST_ID])
        start = partial(_start, environ, start_response, count, time.perf_counter())
        metrics.in_progress.inc()
        try:
            return wsgi_app(environ, start)
        finally:
            metrics.in_progress.dec()

    return instrumented


def _start(
    environ: WSGIEnvironment, start_response: StartResponse, count: Callable[[str, str, str, float], None],
    began: float, status: str, headers: list[tuple[str, str]], *error: Any,
) -> Callable[[bytes], object]:  # fmt: skip
    """The answer is there: count it, and give it its request's id."""
    seconds = time.perf_counter() - began
    # Only names from short lists become labels: a client must not be able to make new ones.
    method = environ["REQUEST_METHOD"] if environ["REQUEST_METHOD"] in _METHODS else "OTHER"
    count(method, _route(environ), status[:3], seconds)
    log.debug("%s %s %s %.3f s", method, environ["PATH_INFO"], status[:3], seconds)
    return start_response(status, [*headers, ("X-Request-ID", environ[REQUEST_ID])], *error)


def _route(environ: WSGIEnvironment) -> str:
    rule = environ["werkzeug.request"].url_rule
    return rule.rule if rule else UNKNOWN_ROUTE


def _counter(metrics: ApiMetrics) -> Callable[[str, str, str, float], None]:
    """Counts an answer. The metrics' children are looked up once: each look-up takes a lock."""
    requests, durations = cache(metrics.requests.labels), cache(metrics.request_duration.labels)

    def count(method: str, route: str, status: str, seconds: float) -> None:
        requests(method, route, status).inc()
        durations(method, route).observe(seconds)

    return count
