"""One program under the supervisor: its process, its history, its next start."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from promptq.up.console import death, say
from promptq.up.restarts import History, after_death, started


class CannotStart(Exception):
    """A program cannot be started, so the service ends.

    Attributes:
        code: the program's exit status.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Program:
    """A child that is started again when it dies.

    Args:
        launch: starts a process; does not wait until it serves.
        process: the first one, where it has been started already.

    Attributes:
        process: the present one, or the last one that was.
        has_died: whether any of its processes ended by itself.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], subprocess.Popen[bytes]],
        now: float,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.name = name
        self.process = process or launch()
        self.has_died = False
        self._launch = launch
        self._history = History(now)
        self._start_at: float | None = None

    def supervise(self, now: float) -> None:
        """Start it again if it has died and its time has come.

        Raises:
            CannotStart: that would be of no use.
        """
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            self._history = started(self._history, now)
            self.process = self._launch()
        elif self._start_at is None and (code := self.process.poll()) is not None:
            self._note_death(code, now)

    def _note_death(self, code: int, now: float) -> None:
        self.has_died = True
        decision = after_death(self._history, code, now)
        self._history = decision.history
        message = death(self.name, code, decision.reason, decision.delay_seconds)
        if decision.delay_seconds is None:
            raise CannotStart(message, code)
        say(message)
        self._start_at = now + decision.delay_seconds
