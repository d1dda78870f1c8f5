"""Objects under one URL: each is written as a whole or not at all, and read from any place."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

from promptq.contract.errors import PromptqError, SettingsError
from promptq.runtime import failpoints

CHUNK_BYTES = 256 * 1024
# An object store keeps what is written in memory until a piece of this size is sent.
PIECE_BYTES = 8 * 2**20


class StorageUnavailable(PromptqError):
    """The storage of files cannot be read or written now."""

    type = "storage_unavailable"


class ObjectMissing(PromptqError):
    """The storage has no such object."""

    type = "object_missing"


class Sink(Protocol):
    """What an object is written through."""

    def write(self, data: bytes, /) -> object: ...


class Objects(ABC):
    """Objects by their paths: each is written as a whole or not at all."""

    @abstractmethod
    def writing(self, path: str) -> AbstractContextManager[Sink]:
        """Write an object. It is there, for good, when the block ends, and not at all if that raises.

        Raises:
            StorageUnavailable: it cannot be written.
        """

    @abstractmethod
    def read(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of an object from `start` up to `stop`, in chunks.

        Raises:
            ObjectMissing: there is none.
            StorageUnavailable: it cannot be read.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete an object, or a folder with all in it; one that is not there is deleted already.

        Raises:
            StorageUnavailable: it cannot be deleted.
        """

    def write(self, path: str, chunks: Iterable[bytes]) -> int:
        """Write an object of these chunks; returns its size in bytes.

        Raises:
            StorageUnavailable: it cannot be written.
        """
        size = 0
        with self.writing(path) as sink:
            for chunk in chunks:
                sink.write(chunk)
                size += len(chunk)
        return size

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of an object, without their ends.

        Raises:
            ObjectMissing, StorageUnavailable: as `read`.
        """
        rest = bytearray()
        for chunk in self.read(path):
            *whole, last = chunk.split(b"\n")
            for piece in whole:
                yield bytes(rest) + piece
                rest.clear()
            rest += last
        if rest:
            yield bytes(rest)


def _call(action: Callable[[], Any]) -> Any:
    return action()


class Storage(Objects):
    """The objects of one deployment. Paths are relative to its URL.

    Args:
        url: of fsspec, such as `file:///var/lib/promptq/files` or `s3://bucket/folder`.
        blocking: calls what may take long, where the caller's thread has others to serve.

    Raises:
        SettingsError: the URL's kind is unknown, or what it needs is not installed.

    Attributes:
        is_local: the objects are files in a folder.
    """

    def __init__(self, url: str, blocking: Callable[[Callable[[], Any]], Any] = _call) -> None:
        self._blocking = blocking
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise SettingsError(f"PROMPTQ_FILES_URL: {error}", param="PROMPTQ_FILES_URL") from None
        self.is_local = isinstance(self._fs, LocalFileSystem)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Sink]:
        """As of `Objects`."""
        with _available():
            target = self._path(path)
            if self.is_local:
                with self._writing_locally(target) as file:
                    yield file
            else:
                with self._writing_remotely(target) as file:
                    yield file

    def read(self, path: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """As of `Objects`."""
        with _available(), self._fs.open(self._path(path), "rb", block_size=PIECE_BYTES) as file:
            file.seek(start)
            left = None if stop is None else stop - start
            while left is None or left > 0:
                chunk: bytes = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    def delete(self, path: str) -> None:
        """As of `Objects`."""
        target = self._path(path)
        with _available(), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                _remove_unfinished(target)
            self._fs.rm(target, recursive=True)

    def names(self, folder: str) -> list[str]:
        """The names of the objects in a folder.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        with _available():
            try:
                found: list[str] = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return [name.rstrip("/").rpartition("/")[2] for name in found]

    def _path(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    @contextlib.contextmanager
    def _writing_locally(self, target: str) -> Iterator[Any]:
        """Beside its place, synced, then renamed into it: a crash leaves the whole object or none."""
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = f"{target}.{secrets.token_hex(4)}.tmp"
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                self._blocking(partial(os.fsync, file.fileno()))
            failpoints.hit("storage.synced")
            os.replace(temporary, target)
            _sync_folder(os.path.dirname(target))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    @contextlib.contextmanager
    def _writing_remotely(self, target: str) -> Iterator[Any]:
        """An object store shows an object when it is committed."""
        file = self._fs.open(target, "wb", block_size=PIECE_BYTES, autocommit=False)
        try:
            yield file
            file.close()
        except BaseException:
            file.discard()
            if isinstance(file, AbstractBufferedFile):
                file.closed = True  # or it would be sent after all when nobody refers to it any more
            raise
        file.commit()


def _remove_unfinished(target: str) -> None:
    """What a process has left that died while it wrote this object."""
    for name in glob.glob(f"{glob.escape(target)}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(f"The storage has no such object: {error}") from error
    except OSError as error:
        raise StorageUnavailable(f"The storage of files does not answer: {error}") from error
