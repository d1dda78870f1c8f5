"""One way of logging for every program: lines for people, or JSON lines for machines."""

from __future__ import annotations

import logging
import logging.config
import sys
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from promptq.contract.settings import CommonSettings, WorkerSettings

LINE = "%(asctime)s %(levelname)-7s %(program)s[%(process)d] %(name)s: %(message)s"
FIELDS = ("request_id", "job_id", "worker")
"""What a line may say of the work at hand, beside its message."""

_work: ContextVar[Mapping[str, str] | None] = ContextVar("work", default=None)


def configure(program: str, settings: CommonSettings) -> None:
    """Log to stderr, from the settings' level up, each line naming the program."""
    fixed = {"program": program}
    if isinstance(settings, WorkerSettings) and settings.worker_name:
        fixed["worker"] = settings.worker_name
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"fields": {"()": _Fields, "fixed": fixed}},
            "formatters": {"text": {"()": _TextFormatter, "fmt": LINE}, "json": {"()": _json_formatter}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler", "formatter": settings.log_format, "filters": ["fields"],
                },
            },
            "root": {"level": settings.log_level, "handlers": ["stderr"]},
        }
    )  # fmt: skip
    logging.captureWarnings(True)
    logging.getLogger("rq").setLevel(logging.WARNING)
    if settings.log_format == "json":
        _log_crashes()


def log_settings(log: logging.Logger, settings: CommonSettings) -> None:
    """Say what this program runs with, secrets masked."""
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in settings.masked().items()))


def begin(**fields: str) -> None:
    """From here on, lines of this thread (or greenlet) carry these fields and none of an earlier piece of work."""
    _work.set(fields)


def add(**fields: str) -> None:
    """Lines of the present piece of work carry these fields too."""
    _work.set({**(_work.get() or {}), **fields})


class _Fields(logging.Filter):
    """Puts the fields on each record; `extra=` of the call itself wins."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        super().__init__()
        self._fixed = fixed

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        for name, value in {**self._fixed, **(_work.get() or {})}.items():
            record.__dict__.setdefault(name, value)
        return True


class _TextFormatter(logging.Formatter):
    """The fields at the end of the line, where there are any."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        given = [f" {name}={record.__dict__[name]}" for name in FIELDS if record.__dict__.get(name)]
        return super().formatMessage(record) + "".join(given)


def _json_formatter() -> logging.Formatter:
    """One object a line; a traceback is a field of it."""
    names = {"levelname": "level", "name": "logger", "process": "pid"}
    return JsonFormatter([*names, "message"], rename_fields=names, timestamp=True, json_ensure_ascii=False)


def _log_crashes() -> None:
    """What would end a program or a thread as a bare traceback is one JSON line too."""

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        logging.getLogger("crash").critical("ended by %s", kind.__name__, exc_info=(kind, error, traceback))

    def thread_hook(arguments: Any) -> None:
        hook(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = hook
    threading.excepthook = thread_hook
