"""JobStore: every change to a job is one call here, one Lua script and one round trip."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import chain
from typing import Any

import redis

from promptq import keys
from promptq.connection import answering, connect
from promptq.errors import IdempotencyConflict, JobAlreadyTerminal, JobNotFailed, JobNotFound, QueueFull
from promptq.job import Job, Result, Status, encode_traceback, read_status, to_iso
from promptq.records import Claim, Ending, NewJob, Reaped, Submitted
from promptq.settings import CommonSettings

__all__ = ["Claim", "Ending", "JobStore", "NewJob", "Reaped", "Submitted", "answering", "connect"]

POSITION_HORIZON = 10_000
REAP_AT_MOST = 100
MAX_RETRY_AFTER_SECONDS = 300
UNKNOWN_RETRY_AFTER_SECONDS = 5


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

    def uptime_seconds(self) -> float:
        """How long the server has been up."""
        with answering():
            server: Any = self.client.info("server")
        return float(server["uptime_in_seconds"])

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
        outcome, *details = self._run("submit", names, [*self._submit_values(new, cache_key, now), *new.fields()])
        return self._submitted(outcome.decode(), details, new, cache_key, now)

    def claim(self, worker: str, count: int, now: float, busy: bool = False) -> list[Claim]:
        """Lease up to `count` jobs to `worker`, in the order of priority and age.

        Args:
            busy: it runs something, so it gets no job that must run alone, and nothing that is behind such a job.
        """
        expired = encode_traceback("expired: the job waited longer than its ttl_seconds")
        arguments = [
            count, now, to_iso(now), self._score(now), worker, uuid.uuid4().hex[:16] + "-",
            self.settings.ageing_seconds, self.settings.max_attempts, "1" if busy else "",
            self.settings.failure_ttl_seconds, expired,
        ]  # fmt: skip
        return [Claim.from_row(row, self.settings.max_attempts) for row in self._run("claim", [], arguments)]

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

    def reap(self, now: float, spare_leases: bool = False) -> Reaped:
        """Requeue or fail the jobs of expired leases, expire what waited too long, trim registries.

        Args:
            spare_leases: leave leases alone in this pass: their holders may have been cut off.
        """
        lost = encode_traceback("worker_lost: the worker's lease ran out")
        expired = encode_traceback("expired: the job waited longer than its ttl_seconds")
        cutoff = "-inf" if spare_leases else now + keys.LEASE_GRACE_SECONDS
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

    def retry(self, job_id: str, now: float) -> None:
        """Queue a failed job again, as new.

        Raises:
            JobNotFound: no such job.
            JobNotFailed: it has not failed; one that expired has not either.
            QueueFull: as many jobs wait as the settings allow.
        """
        arguments = [job_id, now, self.settings.max_queue_jobs]
        outcome, *details = self._run("retry", [keys.JOB(job_id)], arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        if outcome == b"full":
            raise self._full(details)
        if outcome == b"refused":
            raise JobNotFailed(job_id, read_status(details[0].decode(), details[1].decode()))

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

    def _full(self, details: list[Any]) -> QueueFull:
        depth, turn = details
        return QueueFull(depth, retry_after(turn))

    def _score(self, now: float) -> float:
        return now + self.settings.lease_seconds + keys.LEASE_GRACE_SECONDS

    def _at(self, now: float) -> list[Any]:
        return [now, to_iso(now), self.settings.result_ttl_seconds, self.settings.failure_ttl_seconds]

    def _submit_values(self, new: NewJob, cache_key: str, now: float) -> list[Any]:
        ttl = new.request.ttl_seconds
        return [
            new.id, new.request.priority, now, to_iso(now), self.settings.max_queue_jobs,
            self.settings.result_ttl_seconds, "" if ttl is None else now + ttl, cache_key,
            new.keep_seconds or "", new.fingerprint(),
        ]  # fmt: skip

    def _submitted(self, outcome: str, details: list[Any], new: NewJob, cache_key: str, now: float) -> Submitted:
        if outcome == "full":
            raise self._full(details)
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


def retry_after(turn: bytes) -> int:
    """Whole seconds until a refused job's turn; a guess while nobody knows how fast the queue drains."""
    return min(MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(float(turn)))) if turn else UNKNOWN_RETRY_AFTER_SECONDS


_SCRIPTS = ("submit", "claim", "renew", "finish", "release", "reap", "cancel", "retry", "read")


def _source(name: str) -> str:
    folder = resources.files("promptq") / "lua"
    return keys.lua_prelude() + (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def _handles(claims: Sequence[Claim]) -> Iterator[str]:
    return chain.from_iterable((claim.queue, claim.id, claim.execution) for claim in claims)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
