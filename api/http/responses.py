"""A JSON answer that costs no more than it must."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class JsonResponse(Response):
    """Goes out as it was set: werkzeug would parse and copy the headers once more, and look for a stream to close."""

    default_mimetype = "application/json"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The length was set with the body. URLs in the headers are ASCII."""
        start_response(self.status, self.headers.to_wsgi_list())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]
