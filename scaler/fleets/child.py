"""One worker process: its start, its log, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from promptq.queue.observe import WorkerRecord
from promptq.runtime.parent_death import bound_to_parent
from scaler.fleets.base import Exit
from scaler.fleets.exits import reason_of

LAST_WORDS_SECONDS = 1.0


class Child:
    """One worker process. Times are steady seconds; None: not yet.

    Attributes:
        gpus: UUIDs of the GPUs it was placed on.
        pool: the model that it serves.
        from_spare: whether it was the warm spare.
        awaited_since: since when it could have registered: its start, or the last moment without Redis.
        record: its last known registration.
        missing_since: when a registered worker was first not found in the registry.
        deadline: when it is killed, once it was told to stop.
        sentence: why it was killed, if this process did it.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], now: float, gpus: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
    ) -> None:  # fmt: skip
        self.name = name
        self.spawned_at = now
        self.awaited_since = now
        self.gpus = gpus
        self.pool = ""
        self.from_spare = False
        self.record: WorkerRecord | None = None
        self.registered_at: float | None = None
        self.missing_since: float | None = None
        self.deadline: float | None = None
        self.sentence = ""
        # Its own process group: a terminal's Ctrl-C must not reach it.
        self.process = subprocess.Popen(
            bound_to_parent(command, signal.SIGHUP), env=environment, process_group=0,
            stdin=stdin, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stderr is not None
        self._log = _Log(name, self.process.stderr)

    @property
    def state(self) -> str:
        """starting, idle, busy or draining."""
        if self.deadline is not None:
            return "draining"
        return self.record.state if self.record else "starting"

    def retire(self, deadline: float) -> None:
        """Tell it to finish what it runs and go; once only, for a second signal would end it at once."""
        if self.deadline is None:
            self.deadline = deadline
            self.process.terminate()

    def kill(self, sentence: str) -> None:
        """End it, and what it started, at once."""
        self.sentence = self.sentence or sentence
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self) -> Exit | None:
        """How it ended, or None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        reason = self.sentence or reason_of(code, self.deadline is not None)
        return Exit(self.name, reason, code, self._log.last_words())


class _Log:
    """Passes a worker's stderr on line by line, and keeps the last one."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._last = ""
        self._thread = threading.Thread(target=self._relay, args=(stream,), name=f"log of {name}", daemon=True)
        self._thread.start()

    def last_words(self) -> str:
        """The last line, once the stream has ended; a grandchild that holds it open is not waited for long."""
        self._thread.join(LAST_WORDS_SECONDS)
        return self._last

    def _relay(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                text = line.decode(errors="replace")
                self._last = text.strip().rpartition("\r")[2] or self._last  # a progress bar's lines end in \r
                with contextlib.suppress(OSError):  # a closed terminal must not block the worker's log
                    sys.stderr.write(text)
                    sys.stderr.flush()
