"""What a job is: its states, its view, and how both are read from RQ's hash. Pure."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from promptq.contract import embeddings
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.queues import Priority, QueueName


class Status(StrEnum):
    """The states of a job, as clients see them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether the state never changes again."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.EXPIRED, Status.SUCCEEDED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}
"""queued → succeeded is a job that joined another and got its text. An operator's `rq requeue` is a new life."""

FIELDS = (
    "status", "origin", "created_at", "started_at", "ended_at", "attempts", "cache", "cache_key", "cancel_requested",
    "error_type", "error_message", "owner",
)  # fmt: skip
"""What of a job's hash its view needs. The prompt is not among them: a poll must not carry it."""

_FROM_RQ = {
    "finished": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "stopped": Status.CANCELLED,
    "canceled": Status.CANCELLED,
    "started": Status.RUNNING,
}
_TO_RQ = {
    Status.QUEUED: "queued",
    Status.RUNNING: "started",
    Status.SUCCEEDED: "finished",
    Status.FAILED: "failed",
    Status.EXPIRED: "failed",
    Status.CANCELLED: "canceled",
}


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a stable type and a sentence."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave. Seconds are durations; the token counts exclude padding.

    Attributes:
        cached_tokens: of the prompt, those that the engine had in memory.
        logprobs: one for each token of the completion, where the request asked for them.
        batch_size: the most rows that were live in one engine step with this job.
        resumed_tokens: of the completion, those that earlier runs had generated.
        moves: how often the job was taken from a worker before.
        embedding: what the job gave in place of a text, where it was asked for one.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_seconds: float = 0.0
    time_to_first_token_seconds: float | None = None
    run_seconds: float = 0.0
    batch_size: int = 0
    resumed_tokens: int = 0
    moves: int = 0
    cached_tokens: int = 0
    logprobs: Sequence[TokenLogprob] = ()
    embedding: Sequence[float] = ()

    def encode(self) -> str:
        """RQ's form of a return value: base64 of JSON, readable through `Job.return_value()`.

        Raises:
            ValueError: what the engine gave cannot be stored.
        """
        value = self.as_dict()
        if self.embedding:
            value["output"]["embedding"] = embeddings.packed(self.embedding)
        return base64.b64encode(to_json(value)).decode()

    def as_dict(self) -> dict[str, Any]:
        """The nested form that RQ users and the API's answers share."""
        return {
            "model": self.model,
            "output": {"text": self.text, "finish_reason": self.finish_reason} | self._sequences(),
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens,
                "cached_tokens": self.cached_tokens,
            },
            "timings": {
                "queue_seconds": round(self.queue_seconds, 6),
                "time_to_first_token_seconds": self.time_to_first_token_seconds,
                "run_seconds": round(self.run_seconds, 6),
                "batch_size": self.batch_size,
                "resumed_tokens": self.resumed_tokens,
                "moves": self.moves,
            },
        }

    def _sequences(self) -> dict[str, Any]:
        own = {"logprobs": self.logprobs, "embedding": self.embedding}
        return {name: list(values) for name, values in own.items() if values}

    @classmethod
    def decode(cls, encoded: bytes | str) -> Result:
        """The inverse of `encode`; timings that a later release adds are passed over."""
        value = json.loads(base64.b64decode(encoded))
        output = value["output"]
        if "embedding" in output:
            output["embedding"] = embeddings.unpacked(output["embedding"])
        usage = {name: count for name, count in value["usage"].items() if name != "total_tokens"}
        timings = {name: seconds for name, seconds in value["timings"].items() if name in cls.__slots__}
        return cls(model=value["model"], **output, **usage, **timings)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as clients see it. Times are wall seconds since the epoch.

    Attributes:
        queue_position: jobs ahead of it in its queue; None when it is not in the list or far back.
        cache: miss, hit, join, or bypass when the cache was not asked.
        owner: name of the API key that it belongs to, or an empty string.
    """

    id: str
    status: Status
    queue: QueueName
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    queue_position: int | None = None
    cache: str = "miss"
    result: Result | None = None
    error: JobError | None = None
    cancel_requested: bool = False
    owner: str = ""

    @property
    def priority(self) -> Priority:
        """That of its queue."""
        return self.queue.priority

    @classmethod
    def from_fields(
        cls,
        job_id: str,
        default_model: str,
        values: Sequence[bytes | None],
        result: bytes | None = None,
        position: int | None = None,
    ) -> Job:
        """Read RQ's job hash.

        Args:
            default_model: whose queues RQ knows by their priority alone.
            values: those of `FIELDS`, in that order; None for one that the hash does not have.
            result: the `return_value` of its last result, if it has one.
            position: jobs ahead of it in its queue.
        """
        text = {name: raw.decode(errors="replace") for name, raw in zip(FIELDS, values, strict=True) if raw is not None}
        status = read_status(text.get("status", ""), text.get("error_type", ""))
        error = JobError(text.get("error_type", "failed"), text.get("error_message", "The job failed."))
        created = from_iso(text.get("created_at")) or 0.0
        return cls(
            id=job_id,
            status=status,
            queue=QueueName.parse(text.get("origin", ""), default_model),
            created_at=created,
            started_at=None if status is Status.QUEUED else from_iso(text.get("started_at")),
            finished_at=from_iso(text.get("ended_at")) if status.is_terminal else None,
            attempts=int(text.get("attempts") or 0),
            queue_position=position if status is Status.QUEUED else None,
            cache=text.get("cache") or ("miss" if "cache_key" in text else "bypass"),
            result=_own_result(result) if result and status.is_terminal else None,
            error=error if status in (Status.FAILED, Status.EXPIRED) else None,
            cancel_requested=status is Status.RUNNING and "cancel_requested" in text,
            owner=text.get("owner", ""),
        )


def read_status(rq_status: str, error_type: str) -> Status:
    """Our name for RQ's status; what is neither running nor ended waits."""
    status = _FROM_RQ.get(rq_status, Status.QUEUED)
    return Status.EXPIRED if status is Status.FAILED and error_type == "expired" else status


def rq_status(status: Status) -> str:
    """RQ's name for our status."""
    return _TO_RQ[status]


def _own_result(encoded: bytes) -> Result | None:
    """Plain RQ may have run another program's job under a queue's name: what that returned is not ours to read."""
    try:
        return Result.decode(encoded)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def encode_traceback(text: str) -> str:
    """RQ's form of `exc_string`: base64 of zlib."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


@lru_cache(16)  # jobs that are submitted together have one time
def to_iso(seconds: float) -> str:
    """RQ's form of a time: UTC, microseconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def from_iso(text: str | None) -> float | None:
    """Seconds since the epoch, or None for an empty field."""
    return datetime.fromisoformat(text).timestamp() if text else None
