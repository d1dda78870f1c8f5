"""What gunicorn needs from us: a worker that lets go of long polls, our way of logging, the metric files."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import gevent
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from promptq.contract.settings import ApiSettings, publish_to_environment
from promptq.runtime import logs

log = logging.getLogger(__name__)


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """On SIGTERM the long polls are answered at once; otherwise each would hold the process for up to a minute."""

    def init_process(self) -> None:
        """Be killable from the start: a SIGTERM that comes before gunicorn handles it in the child would be lost,
        and the arbiter would then wait for the whole graceful time-out."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop accepting, and let every wait end."""
        super().handle_exit(sig, frame)
        # Not in the signal handler itself, which must not block on a lock.
        gevent.spawn(self._drain)

    def _drain(self) -> None:
        from api.current import services_of

        if hasattr(self, "wsgi"):
            services_of(self.wsgi).waiters.drain()


class OwnLogger(Logger):  # type: ignore[misc]
    """Gunicorn's messages through the log that every program of ours has."""

    def setup(self, cfg: Any) -> None:
        """Keep gunicorn's own handlers off."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        logs.configure("api", ApiSettings.load())


def prepare_metrics(settings: ApiSettings, pid: int) -> None:
    """An empty folder for the processes' metric files: old ones would carry their counts over."""
    folder = metrics_folder(settings, pid)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    publish_to_environment(PROMETHEUS_MULTIPROC_DIR=str(folder), PROMETHEUS_DISABLE_CREATED_SERIES="True")


def remove_metrics(settings: ApiSettings, pid: int) -> None:
    """Leave nothing behind."""
    shutil.rmtree(metrics_folder(settings, pid), ignore_errors=True)


def metrics_folder(settings: ApiSettings, pid: int) -> Path:
    """One folder a run. Containers that share a volume may share a pid, but not a host name."""
    return settings.data_dir.resolve() / "metrics" / f"api-{socket.gethostname()}-{pid}"
