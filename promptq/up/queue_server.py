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
    """End the server that a killed `promptq up` left behind."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text(encoding="utf-8"))
        there = Path(f"/proc/{pid}/cwd")
        if there.readlink() != folder.resolve():
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + LEFTOVER_END_SECONDS
        while there.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
