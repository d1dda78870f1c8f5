"""Storage in a process of its own: clients of object stores run event loops, and the API's gevent lets none run.

Also the program that runs there: `python -m promptq.storage.outside put|get|delete URL PATH [START STOP]`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from promptq.contract.errors import PromptqError
from promptq.runtime.programs import command, environment
from promptq.storage.storage import CHUNK_BYTES, ObjectMissing, Objects, Sink, Storage, StorageUnavailable


class _Code(IntEnum):
    OK = 0
    MISSING = 10
    UNAVAILABLE = 11


class StorageOutside(Objects):
    """As `Storage`, with a process for each call. For objects that are large and few.

    Raises:
        SettingsError: as `Storage`.
    """

    def __init__(self, url: str) -> None:
        Storage(url)  # what is wrong with it is said at the start
        self._url = url

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Sink]:
        """As of `Storage`: what raises in the block ends the process before it has all, so that nothing is kept."""
        process = self._start("put", path)
        try:
            assert process.stdin
            yield _Pipe(process)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            _check(process)
        finally:
            _end(process)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """As of `Storage`."""
        process = self._start("get", path, str(start), "" if stop is None else str(stop))
        try:
            assert process.stdout
            while chunk := process.stdout.read(CHUNK_BYTES):
                yield chunk
            _check(process)
        finally:
            _end(process)

    def delete(self, path: str) -> None:
        """As of `Storage`."""
        process = self._start("delete", path)
        try:
            _check(process)
        finally:
            _end(process)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        action, *rest = arguments
        return subprocess.Popen(
            command("promptq.storage.outside", action, self._url, *rest),
            env=environment(),
            stdin=subprocess.PIPE if action == "put" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


class _Pipe:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def write(self, data: bytes) -> int:
        """To the process; where it has ended, raises why."""
        assert self._process.stdin
        try:
            return self._process.stdin.write(data)
        except BrokenPipeError:
            _check(self._process)
            raise StorageUnavailable("The storage of files has ended.") from None


def _check(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr
    said = process.stderr.read().decode(errors="replace").strip()
    code = process.wait()
    if code == _Code.MISSING:
        raise ObjectMissing(said)
    if code != _Code.OK:
        raise StorageUnavailable(said.rpartition("\n")[2] or f"The storage of files has ended with code {code}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def main() -> int:
    """Do one thing, and say on stderr what went wrong."""
    action, url, path, *place = sys.argv[1:]
    try:
        _do(Storage(url), action, path, place)
    except ObjectMissing as error:
        print(error.message, file=sys.stderr)
        return _Code.MISSING
    except PromptqError as error:
        print(error.message, file=sys.stderr)
        return _Code.UNAVAILABLE
    return _Code.OK


def _do(storage: Storage, action: str, path: str, place: list[str]) -> None:
    if action == "put":
        chunks: Any = iter(lambda: sys.stdin.buffer.read(CHUNK_BYTES), b"")
        storage.write(path, chunks)
    elif action == "get":
        start, stop = place
        for chunk in storage.read(path, int(start), int(stop) if stop else None):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    else:
        storage.delete(path)


if __name__ == "__main__":
    sys.exit(main())
