"""The outbox: ends of which somebody asked to be told, until their deliveries are noted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from promptq.queue.connection import answering
from promptq.queue.store import JobStore


@dataclass(frozen=True, slots=True)
class End:
    """One end, as the script wrote it that ended a job or a batch.

    Attributes:
        entry: the id of its entry; no other end has it.
        kind: `job`, `response` or `batch`.
        id: of the job or the batch.
        state: the job's or the batch's.
        owner: name of the API key that it belongs to, or an empty string.
        at: when it ended, in seconds since the epoch, by the server's clock.
        webhook: of a job that has one of its own, as `OwnWebhook` encodes it, or an empty string.
    """

    entry: str
    kind: str
    id: str
    state: str
    owner: str
    at: float
    webhook: str = ""

    @classmethod
    def from_entry(cls, entry_id: bytes, fields: Mapping[bytes, bytes]) -> End:
        """Read an entry of the stream. What another program wrote has gaps."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        at = int(entry_id.partition(b"-")[0]) / 1000
        kind, named, state, owner = (text.get(name, "") for name in ("kind", "id", "state", "owner"))
        return cls(entry_id.decode(), kind, named, state, owner, at, text.get("webhook", ""))

    @property
    def event_id(self) -> str:
        """Of the event that tells of it: it follows from the end, so that whoever tells it once more tells the same."""
        return f"evt_{hashlib.sha256(f'{self.entry} {self.id}'.encode()).hexdigest()[:32]}"


def length(store: JobStore) -> int:
    """How many ends wait there.

    Raises:
        RedisUnavailable: it does not answer.
    """
    with answering():
        return int(store.client.xlen(store.keys.outbox()))


def read(store: JobStore, count: int) -> list[End]:
    """The oldest ends that are there, at most so many.

    Raises:
        RedisUnavailable: it does not answer.
    """
    with answering():
        entries: Any = store.client.xrange(store.keys.outbox(), count=count)
    return [End.from_entry(*entry) for entry in entries]
