"""What a program's exit status means to whoever started it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit statuses of every program."""

    OK = 0
    CRASHED = 1
    SETTINGS = 2
    REDIS_UNAVAILABLE = 3
    ENGINE = 4
    ENGINE_BROKEN = 5
    WORKER_REPLACED = 6
    KILLED = 70
