"""What happens around every request: its id, its metrics, its line in the log.

A wrapper around Flask rather than hooks inside it: it costs less, and sees a response until its last byte.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask

from api.current import REQUEST_ID, services_of
from api.http.responses import until_closed
from promptq.contract.metrics import ApiMetrics
from promptq.runtime import logs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

UNKNOWN_ROUTE = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GOOD_ID = re.compile(r"[\x21-\x7e]{1,128}")


def register(app: Flask) -> None:
    """Instrument every request of `app`."""
    app.wsgi_app = _instrumented(app.wsgi_app, services_of(app).metrics)  # type: ignore[assignment, method-assign]


def _instrumented(wsgi_app: WSGIApplication, metrics: ApiMetrics) -> WSGIApplication:
    """A request is in progress until its response has been sent, to the last byte of a stream.

    Its duration ends where its response begins: a stream lasts as long as its job, whose own metrics say how long.
    Log lines that are written while a stream is sent carry the request's fields; the next request replaces them.
    """
    count = _counter(metrics)

    def instrumented(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        environ[REQUEST_ID] = given if _GOOD_ID.fullmatch(given) else secrets.token_hex(16)
        logs.begin(request_id=environ[REQUEST_ID])
        start = partial(_start, environ, start_response, count, time.perf_counter())
        metrics.in_progress.inc()
        return until_closed(wsgi_app, environ, start, metrics.in_progress.dec)

    return instrumented


def _start(
    environ: WSGIEnvironment, start_response: StartResponse, count: Callable[[str, str, str, float], None],
    began: float, status: str, headers: list[tuple[str, str]], *error: Any,
) -> Callable[[bytes], object]:  # fmt: skip
    """The response begins: count it with the time until now, and add the request's id to its headers."""
    seconds = time.perf_counter() - began
    # Labels come from fixed lists only, so that a client cannot make new time series.
    method = environ["REQUEST_METHOD"] if environ["REQUEST_METHOD"] in _METHODS else "OTHER"
    count(method, _route(environ), status[:3], seconds)
    log.debug("%s %s %s %.3f s", method, environ["PATH_INFO"], status[:3], seconds)
    return start_response(status, [*headers, ("X-Request-ID", environ[REQUEST_ID])], *error)


def _route(environ: WSGIEnvironment) -> str:
    rule = environ["werkzeug.request"].url_rule
    return rule.rule if rule else UNKNOWN_ROUTE


def _counter(metrics: ApiMetrics) -> Callable[[str, str, str, float], None]:
    """Counts a response. The metrics' children are looked up once, because each look-up takes a lock."""
    requests, durations = cache(metrics.requests.labels), cache(metrics.request_duration.labels)

    def count(method: str, route: str, status: str, seconds: float) -> None:
        requests(method, route, status).inc()
        durations(method, route).observe(seconds)

    return count
