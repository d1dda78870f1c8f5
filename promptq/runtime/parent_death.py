"""Children that do not outlive their parent, and a stop whose second signal kills them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from promptq.contract.exit_codes import ExitCode
from promptq.runtime.lifecycle import Stop

# Run in the child and replaced by the real program, instead of a preexec_fn, which is not safe beside threads.
_LAUNCHER = """
import ctypes, os, signal, sys
number = int(sys.argv[2])
signal.signal(number, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, number)
if os.getppid() != int(sys.argv[1]): sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


def bound_to_parent(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command, made to get a signal when the thread that starts it ends, even by SIGKILL: start it from the
    main thread. Linux only (PR_SET_PDEATHSIG); elsewhere the command as it is.

    Args:
        number: a parent with threads may cause it several times, so for its children no signal whose second means kill.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(number)), *command]


class KillingStop(Stop):
    """A Stop whose second signal, or a SIGQUIT, first calls `kill` and then ends this process at once."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill

    def install(self) -> KillingStop:
        """Handle SIGQUIT beside what a Stop handles. Call from the main thread."""
        super().install()
        signal.signal(signal.SIGQUIT, self._on_quit)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._on_quit(number, frame)
        self.request()

    def _on_quit(self, _number: int, _frame: FrameType | None) -> None:
        try:
            self._kill()
        finally:
            os._exit(ExitCode.KILLED)
