"""The records of batches, and the transitions that only the holder of a batch's lease may make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from promptq.contract.batches import BatchRecord, BatchStatus, Part, window_seconds
from promptq.contract.chunks import chunks
from promptq.queue.connection import answering
from promptq.queue.listing import READ_AT_ONCE, Order, ids_after
from promptq.queue.store import JobStore

NO_FIELDS: Final[Mapping[str, str | int]] = {}
LEASE: Final = "batch:"
"""What a batch's lease is called, before its id."""


class LeaseLost(Exception):
    """Another dispatcher holds the batch: nothing was written."""


class WrittenTwice(Exception):
    """A line is done already: nothing was written. What is in memory of the batch is wrong."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Parts that the storage has, and the lines in them.

    Attributes:
        mark: tells this commit from others of the batch.
        completed, failed: how many of the lines have an answer, and how many have none.
    """

    mark: str
    parts: Sequence[Part]
    lines: Sequence[int]
    completed: int
    failed: int


class BatchRecords:
    """The records of one deployment. All methods raise RedisUnavailable when Redis does not answer or cannot write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._keys = store.keys

    def create(self, record: BatchRecord) -> str:
        """Write a new batch down. Tells `created`, `known` (it is there already), or `missing` (there is no input)."""
        fields = {
            "endpoint": record.endpoint,
            "window": record.window,
            "metadata": json.dumps(record.metadata),
            "output_file_id": record.output_file_id,
            "error_file_id": record.error_file_id,
            "keep_seconds": record.keep_seconds,
            "model": record.model,
            "weight": record.weight,
            "traceparent": record.traceparent,
        }
        head = [record.id, record.owner, window_seconds(record.window), record.input_file_id]
        reply = self._store.scripts.run("batch_create", [*head, *chain.from_iterable(fields.items())])
        return str(reply.decode())

    def get(self, batch_id: str) -> BatchRecord | None:
        """A batch; None where there is none."""
        (record,) = self.get_many([batch_id])
        return record

    def get_many(self, ids: Sequence[str]) -> list[BatchRecord | None]:
        """Batches in one round trip; None for one that is not there."""
        with answering(), self._store.client.pipeline(transaction=False) as pipe:
            for batch_id in ids:
                pipe.hgetall(self._keys.batch(batch_id))
            hashes: list[Any] = pipe.execute()
        return [BatchRecord.from_hash(one, fields) if fields else None for one, fields in zip(ids, hashes, strict=True)]

    def of(
        self, owner: str, after: str = "", order: Order = "desc", at_once: int = READ_AT_ONCE
    ) -> Iterator[BatchRecord]:
        """An owner's batches behind one of them, read as far as they are asked for.

        Args:
            at_once: how many are read in one round trip; a record may have many errors in it.
        """
        ids = ids_after(self._store.client, self._keys.batches(owner), after, order)
        for some in chunks(ids, min(at_once, READ_AT_ONCE)):
            yield from filter(None, self.get_many(some))

    def live(self) -> list[str]:
        """The ids of all batches that have not ended, the oldest first."""
        with answering():
            ids: Any = self._store.client.zrange(self._keys.live_batches(), 0, -1)
        return [batch_id.decode() for batch_id in ids]

    def cancel(self, batch_id: str) -> str:
        """Ask for the end of a batch. Tells `done`, `missing`, or the state in which it cannot be cancelled."""
        return str(self._store.scripts.run("batch_cancel", [batch_id]).decode())

    def retry(self, record: BatchRecord, which: str) -> str:
        """Ask for failed lines to run again. Tells `done`, `missing` or `refused`.

        Args:
            which: a custom_id, or `*` for all.
        """
        arguments = [record.id, which, window_seconds(record.window)]
        return str(self._store.scripts.run("batch_retry", arguments).decode())

    def done(self, batch_id: str) -> bytes:
        """Which lines are done, as `is_done` reads it."""
        with answering():
            bitmap: Any = self._store.client.get(self._keys.batch_done(batch_id))
        return bytes(bitmap or b"")

    def parts(self, batch_id: str) -> list[Part]:
        """What the batch has written so far, in the order in which it was committed."""
        with answering():
            entries: Any = self._store.client.lrange(self._keys.batch_parts(batch_id), 0, -1)
        return [Part.decode(entry) for entry in entries]

    def commit(self, batch_id: str, token: str, commit: Commit) -> None:
        """Add parts to what the batch has written, and mark their lines as done: all or nothing.

        Raises:
            LeaseLost: the token's lease has ended.
            WrittenTwice: one of the lines is done already.
        """
        head = [batch_id, token, commit.mark, commit.completed, commit.failed, len(commit.parts)]
        values = chain.from_iterable(_values(part) for part in commit.parts)
        reply = self._store.scripts.run("batch_commit", [*head, *values, *commit.lines])
        if reply == b"twice":
            raise WrittenTwice(batch_id)
        _check(reply, batch_id)

    def reopen(self, record: BatchRecord, token: str, parts: Sequence[Part], lines: Sequence[int]) -> None:
        """Have failed lines run again: the batch's files are these parts now, and the lines are not done.

        Raises:
            LeaseLost: the token's lease has ended.
        """
        head = [record.id, token, record.round, len(parts)]
        values = chain.from_iterable(_values(part) for part in parts)
        _check(self._store.scripts.run("batch_reopen", [*head, *values, *lines]), record.id)

    def move(
        self,
        batch_id: str,
        token: str,
        before: Sequence[BatchStatus],
        after: BatchStatus,
        fields: Mapping[str, str | int] = NO_FIELDS,
        *,
        keep_seconds: int | None = None,
    ) -> bool:
        """Bring a batch into its next state. False: it is in none of those that it may come from.

        Args:
            fields: of its record, to be set with it.
            keep_seconds: where the batch ends, how long it is kept.

        Raises:
            LeaseLost: the token's lease has ended.
        """
        keep = "" if keep_seconds is None else keep_seconds
        arguments = [batch_id, token, " ".join(before), after, keep, *chain.from_iterable(fields.items())]
        reply = self._store.scripts.run("batch_move", arguments)
        if reply == b"lost":
            raise LeaseLost(batch_id)
        return bool(reply == b"done")


def _values(part: Part) -> tuple[str, str, int]:
    return part.kind, part.encode(), part.size


def _check(reply: bytes, batch_id: str) -> None:
    if reply == b"lost":
        raise LeaseLost(batch_id)
