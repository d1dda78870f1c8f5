"""One way of logging for every program."""

from __future__ import annotations

import logging
import logging.config

from promptq.settings import CommonSettings

LINE = "%(asctime)s %(levelname)-7s %(program)s[%(process)d] %(name)s: %(message)s"


def configure(program: str, settings: CommonSettings) -> None:
    """Log to stderr, from the settings' level up, each line naming the program."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": logging.Formatter, "fmt": LINE, "defaults": {"program": program}}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": settings.log_level, "handlers": ["stderr"]},
        }
    )
    logging.captureWarnings(True)
    logging.getLogger("rq").setLevel(logging.WARNING)


def log_settings(log: logging.Logger, settings: CommonSettings) -> None:
    """Say what this program runs with, secrets masked."""
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in settings.masked().items()))
