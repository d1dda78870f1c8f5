"""Reads what the jobs of one owner have used, by day and model. Changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from promptq.queue.connection import answering
from promptq.queue.store import JobStore


@dataclass(frozen=True, slots=True)
class Usage:
    """What one owner's jobs of one model used on one day.

    Attributes:
        counts: by the names that the scripts write; see `Keys.usage`.
    """

    day: date
    model: str
    counts: Mapping[str, int]


def read(store: JobStore, owner: str, days: Sequence[date]) -> list[Usage]:
    """The usage of these days, in one round trip; a day without any has none.

    Args:
        owner: name of the API key; an empty string where no keys are in use.

    Raises:
        RedisUnavailable: as the store does.
    """
    with answering(), store.client.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hgetall(store.keys.usage(f"{day.isoformat()}:{owner}"))
        hashes: list[Any] = pipe.execute()
    return [usage for day, fields in zip(days, hashes, strict=True) for usage in _by_model(day, fields)]


def _by_model(day: date, fields: Mapping[bytes, bytes]) -> list[Usage]:
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, value in fields.items():
        count, _, model = name.decode().partition(":")
        counts[model][count] = int(value)
    return [Usage(day, model, counts[model]) for model in sorted(counts)]
