"""Which process of which machine one is, so that another process there can tell whether it has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")
_STATE_FIELD, _START_FIELD = 0, 19
"""Of /proc/PID/stat, counted behind the program's name: its state, and its start in ticks since the boot."""


def this_process() -> str:
    """`{boot} {namespace} {pid} {start}`; empty where the kernel does not say (it is not Linux)."""
    try:
        return f"{_machine()} {os.getpid()} {_start(os.getpid())}"
    except OSError:
        return ""


def has_ended(identity: str) -> bool:
    """Whether a process is known to have ended: it ran here, and is here no more. False also where nobody can tell.

    Args:
        identity: what `this_process` gave it.
    """
    machine, _, rest = identity.rpartition(" ")[0].rpartition(" ")
    pid, start = rest, identity.rpartition(" ")[2]
    try:
        if not pid.isdecimal() or machine != _machine():
            return False
        return _start(int(pid)) != start
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


def _machine() -> str:
    """Of a container too: the processes that it sees are those of its namespace."""
    boot = _BOOT.read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink(_NAMESPACE)}"


def _start(pid: int) -> str:
    """When a process started; empty of a zombie, which does nothing any more."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace", encoding="utf-8").rpartition(")")[2].split()
    return "" if fields[_STATE_FIELD] == "Z" else fields[_START_FIELD]
