"""What has ended of one batch, until it is in the storage and committed."""

from __future__ import annotations

import secrets
import time

from dispatcher.batches.lines import Entry
from dispatcher.batches.pace import is_due
from promptq.contract.batches import KINDS, BatchRecord, Part
from promptq.contract.files import part_path
from promptq.contract.metrics import DispatcherMetrics
from promptq.queue.batches import BatchRecords, Commit
from promptq.runtime import failpoints
from promptq.storage.storage import Storage


class Writer:
    """Writes entries as parts, each under a name of its own, and commits them under the lease.

    A part that was written and not committed is nobody's: its lines run or are read again. What could not be written
    or committed stays here, and the same commit is tried again.

    Args:
        token: of the batch's lease.
    """

    def __init__(
        self, batch: BatchRecord, token: str, records: BatchRecords, storage: Storage, metrics: DispatcherMetrics
    ) -> None:
        self._batch = batch
        self._token = token
        self._records = records
        self._storage = storage
        self._metrics = metrics
        self._entries: list[Entry] = []
        self._size = 0
        self._commit: Commit | None = None
        self._began = self._since = time.monotonic()
        self._number = 0

    def add(self, entry: Entry) -> None:
        """Take an entry in."""
        if not self._entries:
            self._since = time.monotonic()
        self._entries.append(entry)
        self._size += len(entry.text)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_due(self) -> bool:
        """Whether it is time to flush."""
        now = time.monotonic()
        return is_due(now - self._began, now - self._since, len(self._entries), self._size)

    def flush(self) -> list[Entry]:
        """Write and commit all entries; gives those that were.

        Raises:
            LeaseLost, WrittenTwice: nothing was written, and nothing more will be.
            RedisUnavailable, StorageUnavailable: to be called again.
        """
        if not self._entries:
            return []
        with self._metrics.commit.time():
            self._commit = self._commit or self._write()
            failpoints.hit("dispatcher.part_written")
            self._records.commit(self._batch.id, self._token, self._commit)
            failpoints.hit("dispatcher.committed")
        committed = self._entries[: len(self._commit.lines)]
        self._metrics.lines.labels("completed").inc(self._commit.completed)
        self._metrics.lines.labels("failed").inc(self._commit.failed)
        self._commit, self._entries = None, self._entries[len(committed) :]
        self._size = sum(len(entry.text) for entry in self._entries)
        return committed

    def _write(self) -> Commit:
        self._number += 1
        mark = f"{self._number:06d}-{secrets.token_hex(8)}"  # there may have been other writers under this lease
        parts = [part for kind in KINDS if (part := self._part(kind, mark))]
        done = {part.kind: part.lines for part in parts}
        lines = [entry.line for entry in self._entries]
        return Commit(mark, parts, lines, done.get("output", 0), done.get("error", 0))

    def _part(self, kind: str, mark: str) -> Part | None:
        texts = [entry.text for entry in self._entries if entry.kind == kind]
        if not texts:
            return None
        name = f"{mark}.{kind}"
        size = self._storage.write(part_path(self._batch.id, name), texts)
        return Part("output" if kind == "output" else "error", name, size, len(texts))
