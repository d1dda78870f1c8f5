"""What scripts reply, in the store's terms. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptq.contract.errors import EventsBehind, IdempotencyConflict, JobNotFound, QueueFull
from promptq.contract.job import Job, Result, Status
from promptq.queue.records import Admission, NewJob, Submitted

MAX_RETRY_AFTER_SECONDS = 300
UNKNOWN_RETRY_AFTER_SECONDS = 5


def seconds_until_turn(turn: bytes) -> int:
    """Whole seconds until a refused job's turn; a guess while nobody knows how fast the queue drains."""
    return min(MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(float(turn)))) if turn else UNKNOWN_RETRY_AFTER_SECONDS


def admission(
    row: Sequence[Any], new: NewJob, cache_key: str, seen: Mapping[str, Job | None], submitted_at: float
) -> Admission:
    """What the submit script said of one job.

    Args:
        seen: the jobs that were there before, by id, as they were read a moment later.
    """
    outcome, *details = row
    match outcome.decode():
        case "full":
            return full(details)
        case "behind":
            return EventsBehind()
        case "conflict":
            return IdempotencyConflict("This id or Idempotency-Key was already used for a different request.")
        case "repeat":
            # Read a moment later: its lifetime may have ended in between.
            known = seen[details[0].decode()]
            return Submitted("repeat", known) if known else JobNotFound(details[0].decode())
        case "hit":
            result = Result.decode(details[0])
            job = Job(new.id, Status.SUCCEEDED, new.queue, submitted_at, None, submitted_at, cache="hit", result=result)
            return Submitted("hit", job)
        case "join":
            return Submitted("join", Job(new.id, Status.QUEUED, new.queue, submitted_at, cache="join"))
    cache = "miss" if cache_key else "bypass"
    (ahead,) = details
    return Submitted("new", Job(new.id, Status.QUEUED, new.queue, submitted_at, queue_position=ahead, cache=cache))


def full(details: Sequence[Any]) -> QueueFull:
    """A refusal's depth, and the seconds until the job's turn."""
    depth, turn = details
    return QueueFull(depth, seconds_until_turn(turn))


def is_claimed(row: Sequence[Any]) -> bool:
    """Of a claim's reply: not a job that plain RQ made, of which is not known yet what it calls."""
    return bool(row[2])
