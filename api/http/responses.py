"""How responses leave the application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.wsgi import ClosingIterator

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class JsonResponse(Response):
    """A JSON body that is sent as it was set, without werkzeug's second pass over headers and body."""

    default_mimetype = "application/json"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The length was set with the body. URLs in the headers are ASCII."""
        start_response(self.status, self.headers.to_wsgi_list())
        return [] if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]


def until_closed(
    wsgi_app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse, release: Callable[[], None]
) -> ClosingIterator:
    """Call a WSGI application, and `release` exactly once, when its response has been sent or given up.

    A view that streams returns long before its last byte. The server closes the iterable in every case: at its end,
    when it raised, and when the client has gone away.
    """
    try:
        body = wsgi_app(environ, start_response)
    except BaseException:
        release()
        raise
    return _Releasing(body, release)


class _Releasing(ClosingIterator):
    """A `ClosingIterator` that also releases where the body's own `close()` raises, and no second time.

    A stream that is given up may have work to do in its `close()`, such as cancelling its job, and that may fail.
    """

    def __init__(self, body: Iterable[bytes], release: Callable[[], None]) -> None:
        super().__init__(body)
        self._release: Callable[[], None] | None = release

    def close(self) -> None:
        """Close the body, then release."""
        release, self._release = self._release, None
        try:
            super().close()
        finally:
            if release:
                release()
