"""`/v1/jobs/{id}/events`: a job's text as it comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flask import Response
from flask_openapi3.types import ResponseDict
from pydantic_core import to_json

from api import visible_jobs
from api.http.blueprints import StrictBlueprint
from api.parameters import POSITION, EventsHeader, EventsQuery, JobPath
from api.presenter import job_fields
from api.schemas import ErrorResponse
from api.streaming import MIMETYPE, Manner, event_response, told
from api.waiting.streams import View
from api.waiting.waiters import LOOK_SECONDS

_GOODBYE = ": this process ends; go on with Last-Event-ID\n\n"
_MANNER = Manner(": still there\n\n", lambda: _GOODBYE, LOOK_SECONDS)
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["status", "delta", "reset", "end"]},
        "data": {"type": "string", "description": "JSON, by the event."},
        "id": {"type": "string", "pattern": POSITION},
    },
}
_RESPONSES: ResponseDict = {
    200: {"content": {MIMETYPE: {"schema": _EVENT}}},
    404: ErrorResponse, 422: ErrorResponse, 503: ErrorResponse,
}  # fmt: skip

blueprint = StrictBlueprint("events", __name__, tag="jobs", url_prefix="/v1/jobs")


@blueprint.get("/<id>/events", responses=_RESPONSES)
def read_events(path: JobPath, header: EventsHeader, query: EventsQuery) -> Response:
    """Read a job's text as it comes (server-sent events)

    `status`, `delta {text}`, `reset` (the text starts over) and, last, `end {job}`. An event's id is a position in the
    text: with `Last-Event-ID` or `?after=` the stream goes on there, at any process of the API, after the end too.
    """
    visible_jobs.read(path.id)
    return event_stream(path.id, header.last_event_id if query.after is None else query.after)


def event_stream(job_id: str, after: str = "") -> Response:
    """The events of a job, from a position on."""
    teller = Teller(*_position(after))
    return event_response(told({job_id: lambda view: "".join(teller.tell(job_id, view))}, _MANNER))


def _position(after: str) -> tuple[int, int]:
    match = re.match(POSITION, after)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


class Teller:
    """What one client has been told, and what it is told next."""

    def __init__(self, position: int = 0, resets: int = 0) -> None:
        self._position = position
        self._resets = resets
        self._status = ""

    def tell(self, job_id: str, view: View) -> Iterator[str]:
        """The events that lead from what was told to this view."""
        if view.status and view.status != self._status:
            self._status = view.status
            yield _event("status", {"id": job_id, "status": view.status})
        if view.resets != self._resets:
            self._position, self._resets = 0, view.resets
            yield _event("reset", {}, self._id())
        if len(view.text) > self._position:
            text, self._position = view.text[self._position :], len(view.text)
            yield _event("delta", {"text": text}, self._id())
        if view.job:
            yield _event("end", {"job": job_fields(view.job)}, self._id())

    def _id(self) -> str:
        return f"{self._position}-{self._resets}" if self._resets else str(self._position)


def _event(name: str, data: dict[str, Any], id: str = "") -> str:
    head = f"id: {id}\nevent: {name}" if id else f"event: {name}"
    return f"{head}\ndata: {to_json(data).decode()}\n\n"
