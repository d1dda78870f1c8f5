"""Checks access before every guarded view, counts the open requests of a key, and adds security headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, g, request

from api.access import Access
from api.current import services, services_of
from api.http.blueprints import is_guarded
from api.http.responses import until_closed

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
"""The name, in a request's WSGI environment, of the key whose open requests it is counted among."""
_JSON_HEADERS = [
    *_HEADERS,
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
]


def register(app: Flask) -> None:
    """Guard the views of `app`, those that are added later too."""
    app.before_request(_admit)
    app.wsgi_app = _guarded(app.wsgi_app, services_of(app).access)  # type: ignore[assignment, method-assign]


def _admit() -> None:
    if not is_guarded():
        return
    access = services().access
    if name := access.admit():
        g.owner = name
        access.enter(name)
        request.environ[_ENTERED] = name


def _guarded(wsgi_app: WSGIApplication, access: Access) -> WSGIApplication:
    """A wrapper around Flask: headers that are always the same need none of the checks of Flask's own headers."""

    def guard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            return start_response(status, headers + (_JSON_HEADERS if _JSON in headers else _HEADERS), *error)

        def leave() -> None:
            if name := environ.pop(_ENTERED, ""):
                access.leave(name)

        return until_closed(wsgi_app, environ, start, leave)

    return guard
