"""The queue's own server: on the port of the last time, with what a killed run left behind put away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from promptq.contract.errors import SettingsError
from promptq.queue.embedded import EmbeddedServer, free_port
from promptq.runtime.ports import listen

LEFTOVER_END_SECONDS = 10.0
LEFTOVER_KILL_SECONDS = 5.0


def make_server(folder: Path, durability: str) -> EmbeddedServer:
    """A server with its data in this folder, not started yet. Nobody else may use the folder.

    Args:
        durability: when it syncs its file: everysec or always.
    """
    _end_leftover(folder)
    options = ("--pidfile", str(folder.resolve() / "pid"), "--appendfsync", durability)
    return EmbeddedServer(folder, _port(folder), options)


def _port(folder: Path) -> int:
    """The port of the last time if it is free, so that `rq info` and notebooks find the queue again."""
    record = folder / "port"
    with contextlib.suppress(OSError, ValueError, SettingsError):
        port = int(record.read_text(encoding="utf-8"))
        listen("", "127.0.0.1", port).close()
        return port
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    record.write_text(str(port), encoding="utf-8")
    return port


def _end_leftover(folder: Path) -> None:
    """End the server that a killed `promptq up` left behind: two of them on one file would spoil it.

    Raises:
        SettingsError: it does not end.
    """
    for wanted, seconds in ((signal.SIGTERM, LEFTOVER_END_SECONDS), (signal.SIGKILL, LEFTOVER_KILL_SECONDS)):
        pid = _leftover(folder)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, wanted)
        deadline = time.monotonic() + seconds
        while _leftover(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
    if pid := _leftover(folder):
        raise SettingsError(f"PROMPTQ_DATA_DIR: process {pid}, a server on {folder}, does not end")


def _leftover(folder: Path) -> int | None:
    """The process that is a server on this folder."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text(encoding="utf-8"))
        if Path(f"/proc/{pid}/cwd").readlink() == folder.resolve():
            return pid
    return None
