"""The outbox: ends of jobs of which somebody asked to be told, until their deliveries are noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptq.contract.job import Status
from promptq.queue.connection import answering
from promptq.queue.store import JobStore


@dataclass(frozen=True, slots=True)
class EndOfJob:
    """One end, as the script that ended the job wrote it.

    Attributes:
        id: of its entry; no other end has it.
        owner: name of the API key that the job belongs to, or an empty string.
        url: where the job's submit asked to be told, or an empty string.
        at: when it ended, in seconds since the epoch, by the server's clock.
    """

    id: str
    job_id: str
    state: Status
    owner: str
    url: str
    at: float

    @classmethod
    def from_entry(cls, entry_id: bytes, fields: Mapping[bytes, bytes]) -> EndOfJob:
        """Read an entry of the stream."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        at = int(entry_id.partition(b"-")[0]) / 1000
        return cls(entry_id.decode(), text["job"], Status(text["state"]), text["owner"], text["url"], at)


def read(store: JobStore, count: int, after: str = "") -> list[EndOfJob]:
    """The oldest ends that are there, at most so many.

    Args:
        after: the id of one; those behind it are read.

    Raises:
        RedisUnavailable: it does not answer.
    """
    with answering():
        entries: Any = store.client.xrange(store.keys.outbox(), f"({after}" if after else "-", count=count)
    return [EndOfJob.from_entry(*entry) for entry in entries]


def forget(store: JobStore, ids: Sequence[str]) -> None:
    """Drop ends whose deliveries are noted.

    Raises:
        RedisUnavailable: they may still be there, and will be read again.
    """
    with answering():
        store.client.xdel(store.keys.outbox(), *ids)
