"""Stop flag, signals, and the loop that every program runs."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Protocol

from promptq.contract.exit_codes import ExitCode

log = logging.getLogger(__name__)


class Stop:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once. SIGHUP, however often, only sets it:
    it comes from a closed terminal, or from the kernel when a parent dies, then once for each of its threads.

    The handler takes no lock, so it is safe wherever the main thread happens to be.
    """

    def __init__(self) -> None:
        self.requested = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def install(self) -> Stop:
        """Handle SIGTERM, SIGINT and SIGHUP. Call from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(signal.SIGHUP, lambda _number, _frame: self.request())
        return self

    def request(self) -> None:
        """Ask for the orderly end."""
        if not self.requested:
            self.requested = True
            os.write(self._writer, b"x")

    def wait(self, seconds: float) -> bool:
        """Sleep until the stop is requested, at most `seconds`. Tells whether it is."""
        if not self.requested:
            select.select([self._reader], [], [], max(0.0, seconds))
        return self.requested

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            os._exit(ExitCode.KILLED)
        self.request()


def leave(code: int) -> NoReturn:
    """End the process, everything of it being closed, without taking the interpreter apart: with torch's libraries in
    it that takes a second or more, in which a worker that has given up its jobs still holds its memory."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Loop(Protocol):
    """What a program does, in three parts."""

    def initialize(self) -> None: ...

    def loop(self, now: float) -> None: ...

    def shutdown(self) -> None: ...


def run(program: Loop, stop: Stop, interval_seconds: float, clock: Callable[[], float] = time.time) -> None:
    """Run until the stop is requested. One failed round is logged, and the next one tried."""
    program.initialize()
    try:
        while not stop.requested:
            started = time.monotonic()
            try:
                program.loop(clock())
            except Exception:
                log.exception("This round failed; the next one goes on.")
            stop.wait(interval_seconds - (time.monotonic() - started))
    finally:
        program.shutdown()
