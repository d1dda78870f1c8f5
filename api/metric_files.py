"""The files in which the API's processes keep their metrics, so that each can tell those of all.

prometheus_client maps them into memory with holes in them. To write to a hole when the disk is full is SIGBUS, which
no program survives; so the blocks are taken beforehand, and where there are none left, the values stay in memory.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import shutil
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from promptq.contract.environment import publish_to_environment
from promptq.contract.settings import ApiSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

INITIAL_BYTES = 1 << 16
"""As prometheus_client makes a file."""
VALUE_BYTES = 32
"""What a value takes beside its name, its padding included."""
# Held as long as a process lives that has the folder: a process id would say nothing on a volume that hosts share.
_held: list[IO[bytes]] = []


def prepare(settings: ApiSettings, pid: int) -> None:
    """An empty folder for this run; what runs before left behind is removed, for its counts would be carried over."""
    folder = _folder(settings, pid)
    with _alone(folder.parent):
        for leftover in folder.parent.glob("api-*"):
            if leftover == folder or not _is_in_use(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        folder.mkdir()
        _held.append(_locked(folder))
    publish_to_environment(PROMETHEUS_MULTIPROC_DIR=str(folder), PROMETHEUS_DISABLE_CREATED_SERIES="True")


def remove(settings: ApiSettings, pid: int) -> None:
    """Leave nothing behind."""
    shutil.rmtree(_folder(settings, pid), ignore_errors=True)


def take_blocks_beforehand() -> None:
    """Have prometheus_client keep its values so from now on, in this process. Before its first metric is made."""
    from prometheus_client import mmap_dict, values

    class FilledDict(mmap_dict.MmapedDict):
        """A file without holes, or memory."""

        def __init__(self, filename: str, read_mode: bool = False) -> None:
            name = filename if read_mode or _fill(filename, INITIAL_BYTES) else _memory()
            super().__init__(name, read_mode)  # type: ignore[no-untyped-call]

        def _init_value(self, key: str) -> None:
            if self._used + len(key.encode()) + VALUE_BYTES > self._capacity:
                self._grow(2 * self._capacity)
            super()._init_value(key)  # type: ignore[no-untyped-call]

        def _grow(self, capacity: int) -> None:
            if not _fill(self._f.name, capacity):
                moved = open(_memory(), "a+b")  # noqa: SIM115  # as long as the process lives
                moved.write(self._m[:])
                moved.flush()
                self._f = moved
            self._f.truncate(capacity)
            self._m, self._capacity = mmap.mmap(self._f.fileno(), capacity), capacity

    vars(values)["MmapedDict"] = FilledDict


def _folder(settings: ApiSettings, pid: int) -> Path:
    """One a run. Containers that share a volume may share a pid, but not a host name."""
    return settings.data_dir.resolve() / "metrics" / f"api-{socket.gethostname()}-{pid}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else prepares meanwhile: a folder that was just made has no lock yet."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(folder: Path) -> IO[bytes]:
    lock: Any = (folder / "lock").open("ab")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock  # type: ignore[no-any-return]


def _is_in_use(folder: Path) -> bool:
    try:
        _locked(folder).close()
    except OSError:
        return True
    return False


def _fill(filename: str, size: int) -> bool:
    """Take a file's blocks. Tells whether there were enough."""
    try:
        with open(filename, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        log.warning("%s: %s; this process's metrics are not shown until it ends.", filename, error.strerror)
        _remove_if_empty(Path(filename))
        return False
    return True


def _remove_if_empty(path: Path) -> None:
    """Whoever adds the files up could not read it."""
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _memory() -> str:
    """The name of a new file that only this process has, and no disk."""
    return f"/proc/self/fd/{os.memfd_create('metrics')}"
