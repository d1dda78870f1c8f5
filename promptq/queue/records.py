"""What goes into the store and comes out of it: new jobs, claims, endings. Pure, but for the random id."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from promptq.contract.errors import IdempotencyConflict, JobNotFound, QueueFull
from promptq.contract.job import Job, JobError, Result, Status, encode_call, encode_traceback
from promptq.contract.request import JobRequest
from promptq.contract.settings import CommonSettings

SubmitOutcome = Literal["new", "join", "hit", "repeat"]

_UNUSUAL = frozenset({"expires_at", "timeout_seconds", "traceparent"})
"""Fields that a claim reads only of a job that has `attempts`; see candidate.lua."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit.

    Attributes:
        keep_seconds: with an idempotency key or a client's own id, how long the job and the record are kept.
        request_id: of the HTTP request that made it, for the worker's log.
        owner: name of the API key that it belongs to; texts are shared only between jobs of one owner.
    """

    id: str
    request: JobRequest
    model_identity: str
    idempotency_key: str = ""
    keep_seconds: int | None = None
    traceparent: str = ""
    request_id: str = ""
    owner: str = ""

    @classmethod
    def create(cls, request: JobRequest, model_identity: str, **fields: Any) -> NewJob:
        """A job under a fresh random id."""
        return cls(secrets.token_hex(16), request, model_identity, **fields)

    def cache_key(self, settings: CommonSettings) -> str:
        """The key under which the text is shared, or an empty string."""
        shared = self.request.cache and self.request.is_deterministic and settings.cache_ttl_seconds
        identity = f"{self.model_identity}#{self.owner}" if self.owner else self.model_identity
        return self.request.cache_key(identity) if shared else ""

    def fingerprint(self) -> str:
        """Tells a repeat from a conflict; the same request of another owner is a conflict.

        A job under a random id and no key needs none: whoever names that id later means another job.
        """
        return ":".join(filter(None, (self.request.fingerprint(), self.owner))) if self.keep_seconds else ""

    def arguments(self, cache_key: str, now: float) -> list[Any]:
        """The submit script's values for one job."""
        ttl, fingerprint = self.request.ttl_seconds, self.fingerprint()
        expires_at = "" if ttl is None else now + ttl
        fields = self.fields(cache_key=cache_key, expires_at=expires_at, fingerprint=fingerprint)
        return [
            self.id, self.request.priority, expires_at, cache_key, self.idempotency_key, self.keep_seconds or "",
            fingerprint, encode_call(self.request.kwargs()), len(fields), *fields,
        ]  # fmt: skip

    def fields(self, **values: Any) -> list[Any]:
        """The job's own fields as name, value, name, value, but for its data.

        One that has no `attempts` before its first claim is plain: the claim asks for nothing more of it.
        """
        fields = {name: value for name, value in values.items() if value != ""}
        if self.request.timeout_seconds is not None:
            fields["timeout_seconds"] = self.request.timeout_seconds
        if self.keep_seconds:
            fields["result_ttl"] = self.keep_seconds
        fields |= {name: value for name in ("traceparent", "request_id", "owner") if (value := getattr(self, name))}
        if not _UNUSUAL.isdisjoint(fields):
            fields["attempts"] = 0
        return list(chain.from_iterable(fields.items()))


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit, and the job as it stands."""

    outcome: SubmitOutcome
    job: Job


Admission = Submitted | QueueFull | IdempotencyConflict | JobNotFound
"""What became of one job of several."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One leased job.

    Attributes:
        execution: the fence: a later claim of the same job has another one.
        data: RQ's serialized call; see `promptq.contract.job.decode_call`.
        refused: names of RQ features on the job that we do not run, comma-separated.
        alone: its worker was lost in every earlier attempt and this is the last: nothing may run beside it.
    """

    id: str
    queue: str
    execution: str
    data: bytes
    attempts: int
    queued_at: float
    timeout_seconds: float | None = None
    refused: str = ""
    traceparent: str = ""
    request_id: str = ""
    alone: bool = False

    @classmethod
    def from_row(cls, row: Sequence[Any], execution: str, max_attempts: int) -> Claim:
        """Read one row of the claim script's reply."""
        job_id, queue, data, attempts, queued_at, request_id, *rare = row
        timeout, refused, traceparent = rare or (b"", b"", b"")
        return cls(
            job_id.decode(), queue.decode(), execution, data, attempts, _number(queued_at) or 0.0, _number(timeout),
            refused.decode(), traceparent.decode(errors="replace"), request_id.decode(errors="replace"),
            1 < attempts >= max_attempts,
        )  # fmt: skip

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about this job says beside its message."""
        return {"job_id": self.id, "request_id": self.request_id}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a claimed job ended: succeeded, failed or cancelled."""

    claim: Claim
    state: Status
    result: Result | None = None
    error: JobError | None = None

    def arguments(self) -> list[str]:
        """The script's values for one job: five, and three more for one that failed."""
        claim, value = self.claim, self.result.encode() if self.result else ""
        values = [claim.queue, claim.id, claim.execution, self.state, value]
        if self.state is Status.FAILED:
            error = self.error or JobError("failed", "The job failed.")
            values += [error.type, error.message, encode_traceback(f"{error.type}: {error.message}")]
        return values


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one pass of the reaper did, in jobs."""

    requeued: int
    worker_lost: int
    cancelled: int
    expired: int


def _number(raw: bytes) -> float | None:
    """A positive number, or None: whatever a job's field holds, it must not cost its batch mates their claim."""
    if not raw:
        return None
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
