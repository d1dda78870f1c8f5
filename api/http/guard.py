"""Checks access before every guarded view, counts the open requests, and adds security headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, g, request

from api.current import services, services_of
from api.http.blueprints import is_guarded
from api.http.responses import until_closed
from api.open_requests import EVERYBODY, OpenRequests

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_JSON = ("Content-Type", "application/json")
_ENTERED = "promptq.entered"
"""The name, in a request's WSGI environment, of the list of those among whose open requests it is counted."""
_JSON_HEADERS = [
    *_HEADERS,
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]


def register(app: Flask) -> None:
    """Guard the views of `app`, those that are added later too."""
    app.before_request(_admit)
    app.wsgi_app = _guarded(app.wsgi_app, services_of(app).open_requests)  # type: ignore[assignment, method-assign]


def _admit() -> None:
    """What is not guarded is not counted either: `/livez` answers while others fill the process."""
    if not is_guarded():
        return
    _enter(EVERYBODY)
    if name := services().access.admit():
        g.owner = name
        _enter(name)


def _enter(name: str) -> None:
    services().open_requests.enter(name)
    request.environ.setdefault(_ENTERED, []).append(name)


def _guarded(wsgi_app: WSGIApplication, open_requests: OpenRequests) -> WSGIApplication:
    """A wrapper around Flask: headers that are always the same need none of the checks of Flask's own headers."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            return start_response(status, headers + (_JSON_HEADERS if _JSON in headers else _HEADERS), *error)

        def leave() -> None:
            for name in environ.pop(_ENTERED, ()):
                open_requests.leave(name)

        return until_closed(wsgi_app, environ, start, leave)

    return guard
