"""A job's text as it comes, told to one client in whatever form it has asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flask import Response, stream_with_context

from api.current import client_has_left, services
from api.waiting.streams import View

KEEP_ALIVE_SECONDS = 15.0
"""A proxy ends a response on which nothing comes, many after a minute."""
MIMETYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stream behaves beside what it tells.

    Attributes:
        keep_alive: said when nothing else was for a while.
        goodbye: gives what is said where the process ends before the job does.
        look_seconds: between two looks whether the client is still there.
    """

    keep_alive: str
    goodbye: Callable[[], str]
    look_seconds: float


def told(tells: Mapping[str, Callable[[View], str]], manner: Manner) -> Iterator[str]:
    """What is told of each view of some jobs, until all are over, the client has left, or the process ends.

    Args:
        tells: by job, what gives all that a view has and that was not told yet, or an empty string.
    """
    streams, metrics = services().streams, services().metrics
    with streams.reading(tells) as (feeds, changed), metrics.streams.track_inprogress():
        spoke_at = 0.0
        while True:
            changed.clear()
            views = [feed.view for feed in feeds]
            looks = zip(feeds, views, tells.values(), strict=True)
            said = "".join(tell(view) for feed, view, tell in looks if not feed.is_new)
            if said or time.monotonic() - spoke_at >= KEEP_ALIVE_SECONDS:
                yield said or manner.keep_alive
                spoke_at = time.monotonic()
            if all(view.is_over for view in views) or client_has_left():
                return
            if streams.drained.is_set():
                yield manner.goodbye()
                return
            changed.wait(manner.look_seconds)


def event_response(chunks: Iterator[str]) -> Response:
    """Chunks as a response, each of which is passed on as it comes."""
    # Of a proxy that gathers responses, as nginx does, this asks that it pass each event on.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream_with_context(chunks), mimetype=MIMETYPE, headers=headers)
