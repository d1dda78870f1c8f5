"""The present request: whose it is, its id, and the parts of the application that serves it.

Views, the code around them and submission import this module; it imports no other module of `api` at run time.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from flask import Flask, current_app, g, request
from gevent import monkey

if TYPE_CHECKING:
    from api.services import Services

EXTENSION = "promptq"
"""The name of the services among Flask's extensions."""
REQUEST_ID = "promptq.request_id"
"""The name of the request's id in its WSGI environment."""
_LEFT = getattr(select, "POLLRDHUP", 0)
"""Linux has it; elsewhere only a connection that is closed both ways is seen, which poll always tells."""
_poll = monkey.get_original("select", "poll")


def services() -> Services:
    """The parts of the application that serves the present request."""
    return services_of(current_app)


def services_of(app: Flask) -> Services:
    """The parts of an application."""
    parts: Services = app.extensions[EXTENSION]
    return parts


def owner() -> str:
    """The name of the API key that the present request came with; an empty string where no keys are in use."""
    return str(g.get("owner", ""))


def request_id() -> str:
    """The present request's id: the client's own, or a fresh one."""
    return str(request.environ[REQUEST_ID])


def client_has_left() -> bool:
    """Whether the present request's client has closed its connection, or has said that it will send no more.

    Bytes that it sent before, such as the next request's, do not matter. Never waits.
    """
    if (connection := request.environ.get("gunicorn.socket")) is None:
        return False
    poll = _poll()
    poll.register(connection.fileno(), _LEFT)
    return bool(poll.poll(0))
