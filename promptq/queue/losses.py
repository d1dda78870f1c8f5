"""Claimed jobs whose texts were lost though their worker lives: they go back, or end, with the attempt counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from promptq.contract.job import encode_traceback
from promptq.queue.records import Claim
from promptq.queue.store import JobStore

UPSTREAM_LOST: Final = "upstream_lost"
"""The type of the error of a job whose text was lost in every attempt."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A claimed job whose text the upstream server lost, and why."""

    claim: Claim
    cause: str

    def arguments(self, rq_queue: str) -> list[str]:
        """The redeliver script's values for one job."""
        message = f"The upstream server lost the text ({self.cause})"
        trace = encode_traceback(f"{UPSTREAM_LOST}: {self.cause}")
        return [rq_queue, self.claim.id, self.claim.execution, message, trace]


@dataclass(frozen=True, slots=True)
class Redelivered:
    """What became of them, in jobs. `failed`: no attempt was left."""

    requeued: int
    failed: int
    cancelled: int


def redeliver(store: JobStore, losses: Sequence[Loss]) -> Redelivered:
    """Put the jobs back at the front of their queues, in the order given, or end them. Lost claims change nothing.

    Raises:
        RedisUnavailable: as the store does; the same once more does nothing twice.
    """
    if not losses:
        return Redelivered(0, 0, 0)
    settings = store.settings
    rows = chain.from_iterable(one.arguments(one.claim.queue.rq_name(settings.default_model)) for one in losses[::-1])
    limits = [settings.result_ttl_seconds, settings.failure_ttl_seconds, settings.max_attempts, UPSTREAM_LOST]
    return Redelivered(*store.scripts.run("redeliver", [*limits, *rows]))
