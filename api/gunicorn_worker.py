"""What gunicorn needs from us: a worker that lets go of long polls, and our way of logging."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Any

import gevent
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from api import metric_files
from promptq.contract.errors import SettingsError
from promptq.contract.settings import ApiSettings
from promptq.runtime import logs

if TYPE_CHECKING:
    from api.services import Services

log = logging.getLogger(__name__)

LEAST_UPLOAD_RATE = 2**20
"""Bytes in a second at which the largest file must arrive."""
SPARE_CONNECTIONS = 64
"""Connections beyond those that requests may hold: for `/livez` and `/metrics`, and to refuse the others."""


def read_models_on_hangup(arbiter: Any) -> None:
    """Let SIGHUP read the catalogue again, in every process of the API. Gunicorn's own way, new processes in place of
    the old ones, would end the streams that are open."""
    arbiter.reload = lambda: arbiter.kill_workers(signal.SIGUSR1)


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """On SIGTERM the long polls are answered at once; otherwise each would hold the process for up to a minute.

    Clients that send or read slowly are given up, and in a crowd no connection is kept between two requests.
    """

    connected = 0

    def init_process(self) -> None:
        """Be killable from the start: a SIGTERM that comes before gunicorn handles it in the child would be lost,
        and the arbiter would then wait for the whole graceful time-out."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        metric_files.take_blocks_beforehand()
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop accepting, and let every wait end."""
        super().handle_exit(sig, frame)
        # Not in the signal handler itself, which must not block on a lock.
        gevent.spawn(self._drain)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Read the catalogue again."""
        super().handle_usr1(sig, frame)
        gevent.spawn(self._read_models)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection."""
        self.connected += 1
        try:
            super().handle(listener, client, addr)
        finally:
            self.connected -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve a request, whose client has so long to send it, and so long to take the response."""
        settings = self._services().settings
        if self.connected > settings.api_connections:
            req.force_close()
        req.body.reader = _TimelyReader(req.body.reader, _seconds_for_body(settings, req))
        sock.settimeout(settings.client_timeout_seconds)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            log.info("A client took longer than %g s to read its response.", settings.client_timeout_seconds)
            raise StopIteration from None  # gunicorn's own way of closing the connection
        finally:
            sock.settimeout(None)

    def _drain(self) -> None:
        if hasattr(self, "wsgi"):
            self._services().waiters.drain()
            self._services().streams.drain()

    def _read_models(self) -> None:
        settings = self._services().settings
        try:
            found = settings.reread_catalogue()
        except SettingsError as error:
            log.error("%s; all stays as it is.", error.message)
            return
        settings.serve(found)
        log.info("Models: %s.", ", ".join(found.by_name))

    def _services(self) -> Services:
        from api.current import services_of

        return services_of(self.wsgi)


def _seconds_for_body(settings: ApiSettings, req: Any) -> float:
    """How long a body may take; a file as long as its size needs at the least rate."""
    if (req.method, req.path) != ("POST", "/v1/files"):
        return settings.client_timeout_seconds
    return settings.client_timeout_seconds + settings.max_file_bytes / LEAST_UPLOAD_RATE


class _TimelyReader:
    """A request's body, all of which must come within a time.

    A limit on each read would not do: a client that sends a byte now and then would hold its place for ever.
    """

    def __init__(self, reader: Any, seconds: float) -> None:
        self._reader = reader
        self._deadline = time.monotonic() + seconds

    def read(self, size: int) -> bytes:
        """As the reader's own; raises TimeoutError when the time is over."""
        with gevent.Timeout(max(0, self._deadline - time.monotonic()), TimeoutError("the body is too slow")):
            data: bytes = self._reader.read(size)
        return data


class OwnLogger(Logger):  # type: ignore[misc]
    """Gunicorn's messages through the log that every program of ours has."""

    def setup(self, cfg: Any) -> None:
        """Keep gunicorn's own handlers off."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        logs.configure("api", ApiSettings.load())
