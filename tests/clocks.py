"""Hosts whose clocks are wrong, or are set while something runs: for real processes, by a library put before libc."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clocks.c")


class Clock:
    """What the processes with this environment take for the time of day.

    Args:
        folder: for the library and the clock's file.
        offset: seconds that it is ahead.
    """

    def __init__(self, folder: Path, name: str, offset: float = 0.0) -> None:
        self._file = folder / f"{name}.clock"
        self.environment = {"LD_PRELOAD": str(_library(folder)), "TEST_CLOCK": str(self._file)}
        self._file.write_bytes(struct.pack("d", offset))

    def set(self, offset: float) -> None:
        """From now on it is so many seconds ahead, in processes that run too."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", offset))


def can_shift_clocks() -> bool:
    """Whether there is a compiler for the library."""
    return shutil.which("cc") is not None


def _library(folder: Path) -> Path:
    library = folder / "clocks.so"
    if not library.exists():
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl", "-lm"]
        subprocess.run(command, check=True)
    return library
