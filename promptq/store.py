"""JobStore: every change to a job is one call here, one Lua script and one round trip."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptq import keys
from promptq.errors import IdempotencyConflict, JobAlreadyTerminal, JobNotFound, QueueFull, RedisUnavailable
from promptq.job import Job, JobError, Result, Status, encode_call, encode_traceback, read_status, to_iso
from promptq.request import JobRequest
from promptq.settings import CommonSettings

POSITION_HORIZON = 10_000
REAP_AT_MOST = 100
MAX_RETRY_AFTER_SECONDS = 300
CONNECT_SECONDS = 5.0
Outcome = Literal["new", "join", "hit", "repeat"]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit.

    Attributes:
        keep_seconds: with an idempotency key or a client's own id, how long the job and the record are kept.
    """

    id: str
    request: JobRequest
    model_identity: str
    idempotency_key: str = ""
    keep_seconds: int | None = None
    traceparent: str = ""

    @classmethod
    def create(cls, request: JobRequest, model_identity: str, **fields: Any) -> NewJob:
        """A job under a fresh random id."""
        return cls(uuid.uuid4().hex, request, model_identity, **fields)

    def cache_key(self, settings: CommonSettings) -> str:
        """The key under which the text is shared, or an empty string."""
        shared = self.request.cache and self.request.is_deterministic and settings.cache_ttl_seconds
        return self.request.cache_key(self.model_identity) if shared else ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit, and the job as it stands."""

    outcome: Outcome
    job: Job


@dataclass(frozen=True, slots=True)
class Claim:
    """One leased job.

    Attributes:
        execution: the fence: a later claim of the same job has another one.
        data: RQ's serialized call; see `promptq.job.decode_call`.
        refused: names of RQ features on the job that we do not run, comma-separated.
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a claimed job ended: succeeded, failed or cancelled."""

    claim: Claim
    state: Status
    result: Result | None = None
    error: JobError | None = None

    def arguments(self) -> list[str]:
        """The script's eight values for one job."""
        error = self.error or JobError("", "")
        value = self.result.encode() if self.result else ""
        trace = encode_traceback(f"{error.type}: {error.message}") if self.error else ""
        claim = self.claim
        return [claim.queue, claim.id, claim.execution, self.state, value, error.type, error.message, trace]


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one pass of the reaper did, in jobs."""

    requeued: int
    worker_lost: int
    cancelled: int
    expired: int


def connect(url: str, timeout_seconds: float | None = 5.0, ping_seconds: int = 0) -> redis.Redis:
    """A client for `url`; connections are made when they are needed.

    A lost connection is tried once more at once: every script is safe to repeat.

    Args:
        timeout_seconds: for connecting and for each answer; None waits for ever (subscriptions).
        ping_seconds: check a connection that was idle this long before it is used; 0: never.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds or CONNECT_SECONDS,
        health_check_interval=ping_seconds,
        retry=Retry(NoBackoff(), retries=1, supported_errors=(redis.ConnectionError,)),
    )


class JobStore:
    """The queue. All methods raise RedisUnavailable when Redis does not answer or cannot write.

    `now` is wall time in seconds; the store reads no clock.
    """

    def __init__(self, client: redis.Redis, settings: CommonSettings) -> None:
        self.client = client
        self.settings = settings
        self._scripts = {name: client.register_script(_source(name)) for name in _SCRIPTS}

    def ping(self) -> None:
        """Check that Redis answers."""
        with answering():
            self.client.ping()

    def submit(self, new: NewJob, now: float) -> Submitted:
        """Admit a job: queue it, join it to a live twin, or end it at once from the cache.

        Raises:
            QueueFull: as many jobs wait as the settings allow.
            IdempotencyConflict: the id or the idempotency key was used for another request.
        """
        cache_key = new.cache_key(self.settings)
        names = [
            keys.JOB(new.id), keys.QUEUE(new.request.priority), keys.CACHE(cache_key), keys.JOIN(cache_key),
            keys.IDEMPOTENCY(new.idempotency_key or new.id),
        ]  # fmt: skip
        outcome, *details = self._run("submit", names, [*self._submit_values(new, cache_key, now), *_fields(new)])
        return self._submitted(outcome.decode(), details, new, cache_key, now)

    def claim(self, worker: str, count: int, now: float) -> list[Claim]:
        """Lease up to `count` jobs to `worker`, in the order of priority and age."""
        expired = encode_traceback("expired: the job waited longer than its ttl_seconds")
        arguments = [
            count, now, to_iso(now), self._score(now), worker, uuid.uuid4().hex[:16] + "-",
            self.settings.ageing_seconds, self.settings.failure_ttl_seconds, expired,
        ]  # fmt: skip
        return [_claim(row) for row in self._run("claim", [], arguments)]

    def renew(self, claims: Sequence[Claim], now: float) -> list[str]:
        """Extend leases. Tells for each claim `ok`, `lost` or `cancel` (a client asked for it)."""
        if not claims:
            return []
        return [reply.decode() for reply in self._run("renew", [], [self._score(now), *_handles(claims)])]

    def finish(self, worker: str, endings: Sequence[Ending], now: float) -> list[bool]:
        """End claimed jobs. False where the claim was lost: nothing was written for that one."""
        if not endings:
            return []
        head = [*self._at(now), self.settings.cache_ttl_seconds, keys.WORKER(worker), worker]
        replies = self._run("finish", [], [*head, *chain.from_iterable(e.arguments() for e in endings)])
        return [reply == 1 for reply in replies]

    def release(self, claims: Sequence[Claim], now: float) -> int:
        """Put claimed jobs back at the front of their queues, in the order given; the attempt is not counted."""
        if not claims:
            return 0
        head = [now, to_iso(now), self.settings.result_ttl_seconds]
        return int(self._run("release", [], [*head, *_handles(claims[::-1])]))

    def reap(self, now: float) -> Reaped:
        """Requeue or fail the jobs of expired leases, expire what waited too long, trim registries."""
        lost = encode_traceback("worker_lost: the worker's lease ran out")
        expired = encode_traceback("expired: the job waited longer than its ttl_seconds")
        cutoff = now + keys.LEASE_GRACE_SECONDS
        arguments = [*self._at(now), cutoff, self.settings.max_attempts, REAP_AT_MOST, lost, expired]
        return Reaped(*self._run("reap", [], arguments))

    def cancel(self, job_id: str, now: float) -> Status:
        """Cancel a job. CANCELLED: it was waiting and has ended. RUNNING: its worker was told to stop.

        Raises:
            JobNotFound: no such job.
            JobAlreadyTerminal: it has ended already.
        """
        arguments = [job_id, now, to_iso(now), self.settings.result_ttl_seconds]
        outcome, *details = self._run("cancel", [keys.JOB(job_id)], arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        if outcome == b"terminal":
            raise JobAlreadyTerminal(job_id, read_status(details[0].decode(), details[1].decode()))
        return Status.CANCELLED if outcome == b"cancelled" else Status.RUNNING

    def get(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFound: it never existed, or its lifetime has ended.
        """
        names = [keys.JOB(job_id), keys.RESULTS(job_id)]
        fields, result, position = self._run("read", names, [job_id, POSITION_HORIZON])
        if b"status" not in fields[::2]:
            raise JobNotFound(job_id)
        return Job.from_hash(job_id, _pairs(fields), _pairs(result).get(b"return_value"), position)

    def wake(self) -> None:
        """Tell idle workers to look: a job put in by plain RQ does not announce itself."""
        with answering():
            self.client.publish(keys.WAKE_CHANNEL, "")

    def _run(self, name: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        with answering():
            return self._scripts[name](keys=names, args=arguments)

    def _score(self, now: float) -> float:
        return now + self.settings.lease_seconds + keys.LEASE_GRACE_SECONDS

    def _at(self, now: float) -> list[Any]:
        return [now, to_iso(now), self.settings.result_ttl_seconds, self.settings.failure_ttl_seconds]

    def _submit_values(self, new: NewJob, cache_key: str, now: float) -> list[Any]:
        ttl = new.request.ttl_seconds
        return [
            new.id, new.request.priority, now, to_iso(now), self.settings.max_queue_jobs,
            self.settings.result_ttl_seconds, "" if ttl is None else now + ttl, cache_key,
            new.keep_seconds or "", new.request.fingerprint(),
        ]  # fmt: skip

    def _submitted(self, outcome: str, details: list[Any], new: NewJob, cache_key: str, now: float) -> Submitted:
        if outcome == "full":
            raise QueueFull(details[0], retry_after(details[0], self.settings.max_queue_jobs, details[1]))
        if outcome == "conflict":
            raise IdempotencyConflict("This id or Idempotency-Key was already used for a different request.")
        if outcome == "repeat":
            return Submitted("repeat", self.get(details[0].decode()))
        priority = new.request.priority
        if outcome == "hit":
            result = Result.decode(details[0])
            return Submitted("hit", Job(new.id, Status.SUCCEEDED, priority, now, None, now, cache="hit", result=result))
        if outcome == "join":
            return Submitted("join", Job(new.id, Status.QUEUED, priority, now, cache="join"))
        cache = "miss" if cache_key else "bypass"
        return Submitted("new", Job(new.id, Status.QUEUED, priority, now, queue_position=details[0], cache=cache))


def retry_after(depth: int, bound: int, drain_rate: bytes | str) -> int:
    """Whole seconds until the queue has room again: jobs over the bound by the jobs that end each second."""
    rate = float(drain_rate or 0)
    if rate <= 0:
        return 5
    return int(min(MAX_RETRY_AFTER_SECONDS, max(1, -(-(depth - bound + 1) // rate))))


@contextmanager
def answering() -> Iterator[None]:
    """Turn the ways in which Redis can be away, full or still loading into RedisUnavailable."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError) as error:
        raise RedisUnavailable(str(error) or type(error).__name__) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise RedisUnavailable("it is full (maxmemory)") from error


_SCRIPTS = ("submit", "claim", "renew", "finish", "release", "reap", "cancel", "read")


def _source(name: str) -> str:
    folder = resources.files("promptq") / "lua"
    return keys.lua_prelude() + (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def _fields(new: NewJob) -> list[Any]:
    fields: dict[str, Any] = {"data": encode_call(new.request.kwargs())}
    if new.request.timeout_seconds is not None:
        fields["timeout_seconds"] = new.request.timeout_seconds
    if new.keep_seconds:
        fields["result_ttl"] = new.keep_seconds
    if new.traceparent:
        fields["traceparent"] = new.traceparent
    return list(chain.from_iterable(fields.items()))


def _claim(row: list[Any]) -> Claim:
    job_id, queue, execution, data, attempts, queued_at, timeout, refused, traceparent = row
    seconds = float(timeout) if timeout and float(timeout) > 0 else None
    return Claim(
        job_id.decode(), queue.decode(), execution.decode(), data, attempts, float(queued_at), seconds,
        refused.decode(), traceparent.decode(),
    )  # fmt: skip


def _handles(claims: Sequence[Claim]) -> Iterator[str]:
    return chain.from_iterable((claim.queue, claim.id, claim.execution) for claim in claims)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
