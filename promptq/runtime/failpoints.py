"""Failpoints at work. Without the setting, a hit is a call of an empty function: nothing is looked up or counted.

Call it by way of the module, as `failpoints.hit(…)`: `arm` replaces the function.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from promptq.contract.errors import RedisUnavailable
from promptq.contract.exit_codes import ExitCode
from promptq.contract.failpoints import Point, Trap, parse

log = logging.getLogger(__name__)


class FailpointHit(Exception):
    """What a failpoint raises."""


def _nothing(_point: Point) -> None:
    """Failpoints are off."""


hit: Callable[[Point], None] = _nothing
"""A process has come to this point."""


def arm(text: str) -> None:
    """Set the traps that the setting names, in place of those there were; with none, failpoints are off.

    Raises:
        ValueError: as `promptq.contract.failpoints.parse`.
    """
    global hit
    traps = parse(text)
    if traps:
        log.warning("Failpoints are set, and this process will fail where they say: %s", text)
    hit = _Armed(traps).hit if traps else _nothing


class _Armed:
    """Counts the hits of this process, from any thread."""

    def __init__(self, traps: Mapping[Point, Trap]) -> None:
        self._traps = traps
        self._hits: Counter[Point] = Counter()
        self._lock = threading.Lock()

    def hit(self, point: Point) -> None:
        """Count it, and fail if it is time.

        Raises:
            FailpointHit, RedisUnavailable: as the trap says.
        """
        trap = self._traps.get(point)
        if trap is None:
            return
        with self._lock:
            self._hits[point] += 1
            is_time = self._hits[point] == trap.at_hit
        if is_time:
            _spring(point, trap)


def _spring(point: Point, trap: Trap) -> None:
    log.warning("Failpoint %s: %s.", point, trap.action)
    match trap.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(ExitCode.CRASHED)
        case "sleep":
            time.sleep(trap.seconds)
        case "unavailable":
            raise RedisUnavailable(f"failpoint {point}")
        case "raise":
            raise FailpointHit(point)
