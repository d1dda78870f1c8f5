"""The records of files. Their bytes are in the storage, which has them before the record is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from promptq.contract.chunks import chunks
from promptq.contract.files import FileRecord
from promptq.queue.connection import answering
from promptq.queue.listing import READ_AT_ONCE, Order, ids_after
from promptq.queue.store import JobStore

EXPIRED_AT_ONCE = 100
UPLOAD_SECONDS = 86_400
"""No upload takes so long; what one has stored by then and nobody put down is left of a process that died."""


class FileRecords:
    """The records of one deployment. All methods raise RedisUnavailable when Redis does not answer or cannot write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._keys = store.keys

    def expect(self, file_id: str) -> None:
        """A file is about to be stored: if it is not put down within a day it expires, as a record with no more than
        its id."""
        ends = f"{self._store.now() + UPLOAD_SECONDS:.6f}"
        with answering():
            self._store.client.zadd(self._keys.file_expiry(), {file_id: ends})

    def put(self, record: FileRecord, keep_seconds: int | None) -> FileRecord:
        """Write a new record down; gives it with its times.

        Args:
            keep_seconds: how long the file is kept; None: until it is deleted.
        """
        keep = "" if keep_seconds is None else keep_seconds
        fields = chain.from_iterable(record.as_hash().items())
        self._store.scripts.run("file_put", [record.id, record.owner, keep, *fields])
        found = self.get(record.id)
        assert found, "it was put down a moment ago"
        return found

    def get(self, file_id: str) -> FileRecord | None:
        """A record; None where there is none."""
        (record,) = self.get_many([file_id])
        return record

    def get_many(self, ids: Sequence[str]) -> list[FileRecord | None]:
        """Records in one round trip; None for one that is not there."""
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for file_id in ids:
                pipe.hgetall(self._keys.file(file_id))
            hashes: list[Any] = pipe.execute()
        return [FileRecord.from_hash(one, fields) if fields else None for one, fields in zip(ids, hashes, strict=True)]

    def of(self, owner: str, after: str = "", order: Order = "desc") -> Iterator[FileRecord]:
        """An owner's files behind one of them, read as far as they are asked for."""
        for some in chunks(ids_after(self._store.client, self._keys.files(owner), after, order), READ_AT_ONCE):
            yield from filter(None, self.get_many(some))

    def drop(self, record: FileRecord) -> bool:
        """Forget a file. False: a batch that has not ended reads or writes it."""
        return bool(self._store.scripts.run("file_drop", [record.id, record.owner]) != -1)

    def expired(self) -> list[FileRecord]:
        """Some files whose time is over, those included that were never put down."""
        now = self._store.now()
        with answering():
            ids: Any = self._store.client.zrange(
                self._keys.file_expiry(), "-inf", f"{now:.6f}", byscore=True, offset=0, num=EXPIRED_AT_ONCE
            )
        names = [one.decode() for one in ids]
        records = zip(names, self.get_many(names), strict=True)
        return [record or FileRecord(name, "", "", "batch", 0) for name, record in records]
