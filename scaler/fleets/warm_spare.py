"""The warm spare: one worker process that has imported everything and waits, so that the next start need not."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Mapping, Sequence

from promptq.contract.assignment import Assignment
from scaler.backoff import Backoff
from scaler.fleets.base import Exit
from scaler.fleets.child import Child

log = logging.getLogger(__name__)

END_SECONDS = 5.0


def wants_spare(states: Sequence[str], wanted: int, backs_off: bool) -> bool:
    """Whether a spare may start now.

    Its imports must not take the cores from a worker that starts, and where workers crash there is no use for more.

    Args:
        states: of the workers there are.
        wanted: how many there should be; while there are none yet, the first goes before the spare.
    """
    return "starting" not in states and not backs_off and (bool(states) or wanted == 0)


class SpareProcess(Child):
    """A worker process that waits for its assignment; a Child like any other from then on."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], now: float) -> None:
        super().__init__("spare", command, environment, now, stdin=subprocess.PIPE)

    def assign(self, name: str, environment: dict[str, str], gpus: Sequence[str], now: float) -> bool:
        """Make it the worker of this name. False: it does not listen any more.

        Args:
            environment: what is added to that which it was started with.
        """
        if not self._send(Assignment(environment=environment, at=time.time()).line()):
            return False
        self.name, self.gpus = name, gpus
        self.spawned_at = self.awaited_since = now
        return True

    def end(self, sentence: str) -> Exit | None:
        """Kill it if it still lives, and tell how it ended; None: the kernel holds on to it."""
        if self.process.poll() is None:
            self.kill(sentence)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        return self.ended()

    def _send(self, line: bytes) -> bool:
        assert self.process.stdin is not None
        try:
            with self.process.stdin as pipe:
                pipe.write(line)
        except BrokenPipeError:
            return False
        return True


class WarmSpare:
    """At most one spare. A spare that dies is started again, after ever longer times until one has been of use.

    Args:
        command: what starts one; empty: there is none.
        environment: what every worker gets.
        own: in what the spare's differs.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], own: Mapping[str, str] | None = None
    ) -> None:
        self.spare: SpareProcess | None = None
        self._command = command
        self._environment = environment
        self._own = own or {}
        self._backoff = Backoff()

    def refill(self, now: float) -> None:
        """Start a spare, unless there is one, or the last one died a moment ago."""
        if not self._command or self.spare or now < self._backoff.retry_at:
            return
        try:
            self.spare = SpareProcess(self._command, {**self._environment, **self._own}, now)
            log.info("Started a spare, process %d.", self.spare.process.pid)
        except OSError as error:
            log.warning("No spare can be started: %s", error)
            self._backoff.fail(now)

    def take(self, name: str, environment: dict[str, str], gpus: Sequence[str], now: float) -> Child | None:
        """The spare as the worker of this name; it may still be importing, and is then ahead all the same."""
        self.poll(now)
        if (spare := self.spare) is None:
            return None
        if not spare.assign(name, environment, gpus, now):
            self._lose(spare, now)
            return None
        self.spare = None
        self._backoff.proved(now)
        return spare

    def poll(self, now: float) -> None:
        """See whether the spare has died."""
        if self.spare and self.spare.ended():
            self._lose(self.spare, now)

    def kill(self) -> None:
        """SIGKILL to the spare. Safe in a signal handler."""
        if self.spare:
            self.spare.kill("killed")

    def end(self) -> None:
        """No spare any more, nor another. It holds nothing, so it is killed."""
        self._command = ()
        if spare := self.spare:
            self.spare = None
            spare.end("retired")

    def _lose(self, spare: SpareProcess, now: float) -> None:
        """It is dead, or deaf."""
        self.spare = None
        log.warning("%s", spare.end("unresponsive") or "The spare cannot be killed.")
        self._backoff.fail(now)
