"""JobStore: every change to a job is one call here, one Lua script and one round trip."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import chain
from typing import Any

import redis

from promptq.contract import keys
from promptq.contract.errors import IdempotencyConflict, JobAlreadyTerminal, JobNotFailed, JobNotFound, QueueFull
from promptq.contract.job import FIELDS, Job, Result, Status, encode_traceback, read_status, to_iso
from promptq.contract.settings import CommonSettings
from promptq.queue.connection import answering, connect
from promptq.queue.records import Admission, Claim, Ending, NewJob, Reaped, Submitted

__all__ = ["Admission", "Claim", "Ending", "JobStore", "NewJob", "Reaped", "Submitted", "answering", "connect"]

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
        # One random token, then numbers: to ask the kernel each time would let another thread have the interpreter.
        self._token, self._claimed = f"{secrets.token_hex(8)}-", itertools.count()
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
        (admission,) = self.submit_many([new], now)
        if isinstance(admission, Exception):
            raise admission
        return admission

    def submit_many(self, news: Sequence[NewJob], now: float) -> list[Admission]:
        """Admit jobs in their order, as `submit` does one; together, so that all or none reach Redis.

        Errors of one job are given in its place. Repeats cost a second round trip, to read the jobs.
        """
        cache_keys = [new.cache_key(self.settings) for new in news]
        values = [new.arguments(cache_key, now) for new, cache_key in zip(news, cache_keys, strict=True)]
        head = [
            now, to_iso(now), self.settings.max_queue_jobs, self.settings.result_ttl_seconds,
            self.settings.cache_ttl_seconds,
        ]  # fmt: skip
        replies = self._run("submit", [], [*head, *chain.from_iterable(values)])
        repeats = [reply[1].decode() for reply in replies if not isinstance(reply, int) and reply[0] == b"repeat"]
        seen = dict(zip(repeats, self.get_many(repeats), strict=True))
        rows = zip(replies, news, cache_keys, strict=True)
        return [_admission(reply, new, cache_key, seen, now) for reply, new, cache_key in rows]

    def claim(self, worker: str, count: int, now: float, busy: bool = False) -> list[Claim]:
        """Lease up to `count` jobs to `worker`, in the order of priority and age.

        Args:
            busy: it runs something, so it gets no job that must run alone, and nothing that is behind such a job.
        """
        if count < 1:
            return []
        token = self._new_token()
        return self._claims(self._run("claim", [], self._claim_values(worker, count, now, busy, token)), token)

    def renew(self, claims: Sequence[Claim], now: float) -> list[str]:
        """Extend leases. Tells for each claim `ok`, `lost` or `cancel` (a client asked for it)."""
        if not claims:
            return []
        return [reply.decode() for reply in self._run("renew", [], [self._score(now), *_handles(claims)])]

    def finish(self, worker: str, endings: Sequence[Ending], now: float) -> list[bool]:
        """End claimed jobs. False where the claim was lost: nothing was written for that one."""
        if not endings:
            return []
        return [reply == 1 for reply in self._run("finish", [], self._finish_values(worker, endings, now))]

    def finish_and_claim(
        self, worker: str, endings: Sequence[Ending], count: int, now: float, busy: bool = False
    ) -> tuple[list[bool], list[Claim]]:
        """`finish`, then `claim`, in one round trip where both have something to do."""
        if not endings or not count:
            return self.finish(worker, endings, now), self.claim(worker, count, now, busy)
        token = self._new_token()
        calls = [
            ("finish", self._finish_values(worker, endings, now)),
            ("claim", self._claim_values(worker, count, now, busy, token)),
        ]
        stored, rows = self._run_together(calls)
        return [reply == 1 for reply in stored], self._claims(rows, token)

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
        cutoff = "-inf" if spare_leases else now + keys.LEASE_GRACE_SECONDS
        arguments = [*self._at(now), cutoff, self.settings.max_attempts, REAP_AT_MOST, lost, _EXPIRED]
        return Reaped(*self._run("reap", [], arguments))

    def take_back(self, worker: str, now: float) -> Reaped:
        """Take back a dead worker's claims at once, the attempt counted as when a lease runs out.

        Args:
            worker: one whose process has been seen to end. One that lives would be fenced off, and its work lost.
        """
        lost = encode_traceback("worker_lost: the worker died")
        arguments = [*self._at(now), worker, self.settings.max_attempts, lost]
        requeued, worker_lost, cancelled = self._run("take_back", [], arguments)
        return Reaped(requeued, worker_lost, cancelled, 0)

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
            raise _full(details)
        if outcome == b"refused":
            raise JobNotFailed(job_id, read_status(details[0].decode(), details[1].decode()))

    def get(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFound: it never existed, or its lifetime has ended.
        """
        (job,) = self.get_many([job_id])
        if job is None:
            raise JobNotFound(job_id)
        return job

    def get_many(self, ids: Sequence[str]) -> list[Job | None]:
        """Read jobs in one round trip; None for one that does not exist, or whose lifetime has ended."""
        if not ids:
            return []
        rows = self._run("read", [], [POSITION_HORIZON // len(ids), len(FIELDS), *FIELDS, *ids])
        return [Job.from_fields(job_id, *row) if row[0][0] else None for job_id, row in zip(ids, rows, strict=True)]

    def wake(self) -> None:
        """Tell idle workers to look: a job put in by plain RQ does not announce itself."""
        with answering():
            self.client.publish(keys.WAKE_CHANNEL, "")

    def _run(self, name: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        with answering():
            return self._scripts[name](keys=names, args=arguments)

    def _run_together(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Scripts one after the other, sent at once; others may come in between, as between two calls."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for name, arguments in calls:
                pipe.evalsha(self._scripts[name].sha, 0, *arguments)
            replies = pipe.execute(raise_on_error=False)
        # Of what was refused, for a forgotten script or a server that may not write, nothing was done: once more alone.
        refused = [isinstance(reply, redis.RedisError) for reply in replies]
        rows = zip(calls, replies, refused, strict=True)
        return [self._run(call[0], [], call[1]) if again else reply for call, reply, again in rows]

    def _new_token(self) -> str:
        """What the executions of one call begin with. A repeat of a call whose answer was lost has the same."""
        return f"{self._token}{next(self._claimed)}-"

    def _claims(self, rows: Sequence[Any], token: str) -> list[Claim]:
        most = self.settings.max_attempts
        return [Claim.from_row(row, f"{token}{place}", most) for place, row in enumerate(rows)]

    def _claim_values(self, worker: str, count: int, now: float, busy: bool, token: str) -> list[Any]:
        return [
            count, now, to_iso(now), self._score(now), worker, token,
            self.settings.ageing_seconds, self.settings.max_attempts, "1" if busy else "",
            self.settings.failure_ttl_seconds, _EXPIRED,
        ]  # fmt: skip

    def _finish_values(self, worker: str, endings: Sequence[Ending], now: float) -> list[Any]:
        head = [*self._at(now), self.settings.cache_ttl_seconds, keys.WORKER(worker), worker]
        return [*head, *chain.from_iterable(ending.arguments() for ending in endings)]

    def _score(self, now: float) -> float:
        return round(now + self.settings.lease_seconds + keys.LEASE_GRACE_SECONDS, 3)

    def _at(self, now: float) -> list[Any]:
        return [now, to_iso(now), self.settings.result_ttl_seconds, self.settings.failure_ttl_seconds]


def _admission(
    reply: int | Sequence[Any], new: NewJob, cache_key: str, seen: Mapping[str, Job | None], now: float
) -> Admission:
    """What the script said of one job."""
    priority = new.request.priority
    if isinstance(reply, int):
        cache = "miss" if cache_key else "bypass"
        return Submitted("new", Job(new.id, Status.QUEUED, priority, now, queue_position=reply, cache=cache))
    outcome, *details = reply
    match outcome.decode():
        case "full":
            return _full(details)
        case "conflict":
            return IdempotencyConflict("This id or Idempotency-Key was already used for a different request.")
        case "repeat":
            # Read a moment later: its lifetime may have ended in between.
            known = seen[details[0].decode()]
            return Submitted("repeat", known) if known else JobNotFound(details[0].decode())
        case "hit":
            result = Result.decode(details[0])
            return Submitted("hit", Job(new.id, Status.SUCCEEDED, priority, now, None, now, cache="hit", result=result))
    return Submitted("join", Job(new.id, Status.QUEUED, priority, now, cache="join"))


def _full(details: Sequence[Any]) -> QueueFull:
    depth, turn = details
    return QueueFull(depth, seconds_until_turn(turn))


def seconds_until_turn(turn: bytes) -> int:
    """Whole seconds until a refused job's turn; a guess while nobody knows how fast the queue drains."""
    return min(MAX_RETRY_AFTER_SECONDS, max(1, math.ceil(float(turn)))) if turn else UNKNOWN_RETRY_AFTER_SECONDS


_EXPIRED = encode_traceback("expired: the job waited longer than its ttl_seconds")
_SCRIPTS = ("submit", "claim", "renew", "finish", "release", "reap", "take_back", "cancel", "retry", "read")

_BEFORE = {
    "read": (), "claim": ("common", "candidate"), "submit": ("common", "cache", "admission"),
    "finish": ("common", "cache"),
}  # fmt: skip
"""What goes before a script; before any other only what is common."""


def _source(name: str) -> str:
    folder = resources.files("promptq.queue") / "lua"
    parts = [*_BEFORE.get(name, ("common",)), name]
    return keys.lua_prelude() + "".join((folder / f"{part}.lua").read_text() for part in parts)


def _handles(claims: Sequence[Claim]) -> Iterator[str]:
    return chain.from_iterable((claim.queue, claim.id, claim.execution) for claim in claims)
