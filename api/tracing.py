"""The part that a request has in its jobs' traces."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

from flask import request

from api.current import services
from promptq.runtime.traces import SubmitSpan

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def submitting() -> AbstractContextManager[SubmitSpan]:
    """Around a submit: the span that its jobs come below, itself below what the client sent."""
    return services().traces.submit(traceparent(), {"url.path": request.path})


def traceparent() -> str:
    """What the client sent, or an empty string where that is none."""
    header = request.environ.get("HTTP_TRACEPARENT", "")
    return header if _TRACEPARENT.fullmatch(header) else ""
