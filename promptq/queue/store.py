"""JobStore: every change to a job is one call here, one Lua script and one round trip."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import redis

from promptq.contract.errors import EventsBehind, JobAlreadyTerminal, JobNotFailed, JobNotFound, RedisUnavailable
from promptq.contract.job import FIELDS, Job, Status, encode_traceback, read_status
from promptq.contract.keys import usage_prelude
from promptq.contract.queues import PRIORITIES, QueueName, queues_of
from promptq.contract.settings import CommonSettings
from promptq.contract.shares import turn_cost
from promptq.queue.connection import answering, connect, without_retries
from promptq.queue.records import Admission, Claim, Ending, NewJob, Reaped, Submitted, Terms
from promptq.queue.replies import admission, full, is_claimed
from promptq.queue.rq_jobs import note_calls
from promptq.queue.scripts import Call, Scripts

__all__ = ["Admission", "Claim", "Ending", "JobStore", "NewJob", "Reaped", "Submitted", "Terms", "answering", "connect"]

ANY = Terms()
ReleaseReason = Literal["drain", "preempted", "upstream"]
POSITION_HORIZON, REAP_AT_MOST = 10_000, 100
_EXPIRED = encode_traceback("expired: the job waited longer than its ttl_seconds")
_LEASE_EXPIRED = encode_traceback("worker_lost: the worker's lease ran out")
_WORKER_DIED = encode_traceback("worker_lost: the worker died")


class JobStore:
    """The queue. All methods raise RedisUnavailable when Redis does not answer or cannot write.

    Args:
        clock: for tests: gives the time of each script, in seconds since the epoch, in place of the server's clock.
    """

    def __init__(
        self, client: redis.Redis, settings: CommonSettings, clock: Callable[[], float | None] = lambda: None
    ) -> None:
        self.client = client
        self.settings = settings
        self.keys = settings.keys
        self._clock = clock
        self._default_model = settings.default_model
        self._unanswered_claim = ""
        usage = usage_prelude(settings.default_model, settings.usage_days)
        self.scripts = Scripts(client, self.keys, clock, usage)
        # A claim that the client repeated by itself would lease other jobs, and nobody would hear of the first ones.
        self._claiming = Scripts(without_retries(client), self.keys, clock, usage)

    def ping(self) -> None:
        """Check that Redis answers."""
        with answering():
            self.client.ping()

    def drop_idle(self) -> None:
        """Close the connections that are not in use: where one has fallen silent, those beside it may have too."""
        for client in (self.client, self._claiming.client):
            client.connection_pool.disconnect(inuse_connections=False)

    def now(self) -> float:
        """The time that scripts go by: the server's, in seconds since the epoch."""
        given = self._clock()
        with answering():
            seconds, microseconds = self.client.time()
        return seconds + microseconds / 1e6 if given is None else given

    def rq_names(self) -> list[str]:
        """Every queue of the deployment, by its name in RQ."""
        return self.settings.catalogue.rq_names

    def uptime_seconds(self) -> float:
        """How long the server has been up."""
        with answering():
            server: Any = self.client.info("server")
        return float(server["uptime_in_seconds"])

    def submit(self, new: NewJob) -> Submitted:
        """Admit a job: queue it, join it to a live twin, or end it at once from the cache.

        Raises:
            QueueFull: as many jobs wait as the settings allow.
            EventsBehind: its end is to be told, and too many others wait for that.
            IdempotencyConflict: the id or the idempotency key was used for another request.
        """
        (admission,) = self.submit_many([new])
        if isinstance(admission, Exception):
            raise admission
        return admission

    def submit_many(self, news: Sequence[NewJob]) -> list[Admission]:
        """Admit jobs in their order, as `submit` does one; those of one model all or none.

        Errors of one job are given in its place. Repeats cost a second round trip, to read the jobs.
        """
        models = list(dict.fromkeys(new.model for new in news))
        places = [[place for place, new in enumerate(news) if new.model == model] for model in models]
        admitted = [self._submit_to(model, [news[i] for i in at]) for model, at in zip(models, places, strict=True)]
        by_place = dict(zip(chain.from_iterable(places), chain.from_iterable(admitted), strict=True))
        return [by_place[place] for place in range(len(news))]

    def claim(self, worker: str, count: int, terms: Terms = ANY) -> list[Claim]:
        """Lease up to `count` jobs to `worker`, in the order of priority and age."""
        if count < 1:
            return []
        with self._answered() as token:
            rows = self._claiming.run(*self._claim_call(worker, count, terms, token))
        return self._claims(rows, worker, count, terms)

    def renew(self, claims: Sequence[Claim]) -> list[str]:
        """Extend leases. Tells for each claim `ok`, `lost` or `cancel` (a client asked for it)."""
        if not claims:
            return []
        replies = self.scripts.run("renew", [self.settings.lease_seconds, *self._handles(claims)])
        return [reply.decode() for reply in replies]

    def finish(self, worker: str, endings: Sequence[Ending]) -> list[bool]:
        """End claimed jobs. False where the claim was lost: nothing was written for that one."""
        if not endings:
            return []
        return [reply == 1 for reply in self.scripts.run(*self._finish_call(worker, endings))]

    def finish_and_claim(
        self, worker: str, endings: Sequence[Ending], count: int, terms: Terms = ANY
    ) -> tuple[list[bool], list[Claim]]:
        """`finish`, then `claim`, in one round trip where both have something to do."""
        if not endings or not count:
            return self.finish(worker, endings), self.claim(worker, count, terms)
        with self._answered() as token:
            calls = [self._finish_call(worker, endings), self._claim_call(worker, count, terms, token)]
            stored, rows = self._claiming.run_together(calls)
        return [reply == 1 for reply in stored], self._claims(rows, worker, count, terms)

    def release(self, claims: Sequence[Claim], *, reason: ReleaseReason = "drain") -> int:
        """Put claimed jobs back at the front of their queues, in the order given; the attempt is not counted."""
        if not claims:
            return 0
        arguments = [self.settings.result_ttl_seconds, reason, *self._handles(claims[::-1])]
        return int(self.scripts.run("release", arguments))

    def reap(self, *, spare_leases: bool = False) -> Reaped:
        """Requeue or fail the jobs of expired leases, expire what waited too long, trim registries.

        Args:
            spare_leases: leave leases alone in this pass: their holders may have been cut off.
        """
        arguments = [
            *self._lifetimes(), "1" if spare_leases else "", self.settings.max_attempts, REAP_AT_MOST, _LEASE_EXPIRED,
            _EXPIRED, *self.rq_names(),
        ]  # fmt: skip
        return Reaped(*self.scripts.run("reap", arguments))

    def take_back(self, worker: str) -> Reaped:
        """Take back a dead worker's claims at once, the attempt counted as when a lease runs out.

        Args:
            worker: one whose process has been seen to end. One that lives would be fenced off, and its work lost.
        """
        limits = [worker, self.settings.max_attempts, _WORKER_DIED]
        queues = self.rq_names()
        requeued, worker_lost, cancelled = self.scripts.run("take_back", [*self._lifetimes(), *limits, *queues])
        return Reaped(requeued, worker_lost, cancelled, 0)

    def cancel(self, job_id: str) -> Status:
        """Cancel a job. CANCELLED: it was waiting and has ended. RUNNING: its worker was told to stop.

        Raises:
            JobNotFound: no such job.
            JobAlreadyTerminal: it has ended already.
        """
        arguments = [job_id, self.settings.result_ttl_seconds, _token()]
        outcome, *details = self.scripts.run("cancel", arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        if outcome == b"terminal":
            raise JobAlreadyTerminal(job_id, read_status(details[0].decode(), details[1].decode()))
        return Status.CANCELLED if outcome == b"cancelled" else Status.RUNNING

    def retry(self, job_id: str, *, weight: float = 1.0) -> None:
        """Queue a failed job again, as new; `weight` is its owner's, as of a new job.

        Raises:
            JobNotFound: no such job.
            JobNotFailed: it has not failed; one that expired has not either.
            QueueFull, EventsBehind: as of a new job.
        """
        model = self.get(job_id).queue.model
        queues = self._rq_names(queues_of(model))
        arguments = [job_id, *self._bounds(), _token(), turn_cost(weight), model, *queues]
        outcome, *details = self.scripts.run("retry", arguments)
        if outcome == b"missing":
            raise JobNotFound(job_id)
        if outcome == b"refused":
            raise JobNotFailed(job_id, read_status(details[0].decode(), details[1].decode()))
        if outcome in (b"full", b"behind"):
            raise full(details) if details else EventsBehind

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
        with_horizon = [POSITION_HORIZON // len(ids), len(FIELDS), *FIELDS, *ids]
        rows = zip(ids, self.scripts.run("read", with_horizon), strict=True)
        return [Job.from_fields(job_id, self._default_model, *row) if row[0][0] else None for job_id, row in rows]

    def wake(self) -> None:
        """Tell idle workers to look: a job put in by plain RQ does not announce itself."""
        with answering():
            self.client.publish(self.keys.wake_channel, "")

    def _submit_to(self, model: str, news: Sequence[NewJob]) -> list[Admission]:
        cache_keys = [new.cache_key(self.settings) for new in news]
        queues = self._rq_names(queues_of(model))
        names = self._rq_names([new.queue for new in news])
        values = [new.arguments(*each) for new, *each in zip(news, names, cache_keys, strict=True)]
        lifetimes = [self.settings.result_ttl_seconds, self.settings.cache_ttl_seconds]
        head = [*self._bounds(), *lifetimes, model, len(queues), *queues]
        submitted_at, rows = self.scripts.run("submit", [*head, *chain.from_iterable(values)])
        repeats = [row[1].decode() for row in rows if row[0] == b"repeat"]
        seen = dict(zip(repeats, self.get_many(repeats), strict=True))
        return [
            admission(row, new, cache_key, seen, float(submitted_at))
            for row, new, cache_key in zip(rows, news, cache_keys, strict=True)
        ]

    @contextmanager
    def _answered(self) -> Iterator[Sequence[str]]:
        """What tells a claim from others: its token, which the next one has again unless this one is answered.

        Of a call whose answer was lost nobody knows whether it was made; the jobs that it may have leased are found by
        its token.
        """
        was_made_before = "1" if self._unanswered_claim else ""
        self._unanswered_claim = self._unanswered_claim or _token()
        yield self._unanswered_claim, was_made_before
        self._unanswered_claim = ""

    def _claim_call(self, worker: str, count: int, terms: Terms, token: Sequence[str]) -> Call:
        limits = [self.settings.ageing_seconds, self.settings.max_attempts, "1" if terms.busy else "", terms.resumes]
        head = [count, self.settings.lease_seconds, worker, *token, *limits]
        queues = self._rq_names(queues_of(terms.model or self._default_model))
        looks = PRIORITIES.index(terms.above) if terms.above else len(queues)
        return "claim", [*head, self.settings.failure_ttl_seconds, _EXPIRED, looks, *queues]

    def _claims(self, rows: Sequence[Any], worker: str, count: int, terms: Terms) -> list[Claim]:
        """Read the claim script's reply. Where it shows what plain RQ made, and nothing else, claim once more."""
        claimed = [row for row in rows if is_claimed(row)]
        claims = [Claim.from_row(row, self._default_model, self.settings.max_attempts) for row in claimed]
        unknown = {row[0]: row[3] for row in rows if not is_claimed(row)}
        if not unknown:
            return claims
        try:
            note_calls(self.client, self.keys, unknown)
        except RedisUnavailable:
            if claims:
                return claims
            raise
        return claims or self.claim(worker, count, terms)

    def _finish_call(self, worker: str, endings: Sequence[Ending]) -> Call:
        head = [*self._lifetimes(), self.settings.cache_ttl_seconds, self.keys.worker(worker), worker]
        values = [ending.arguments(ending.claim.queue.rq_name(self._default_model)) for ending in endings]
        return "finish", [*head, *chain.from_iterable(values)]

    def _bounds(self) -> list[Any]:
        return [self.settings.max_queue_jobs, self.settings.max_outbox_events]

    def _lifetimes(self) -> list[Any]:
        return [self.settings.result_ttl_seconds, self.settings.failure_ttl_seconds]

    def _rq_names(self, queues: Sequence[QueueName]) -> list[str]:
        return [queue.rq_name(self._default_model) for queue in queues]

    def _handles(self, claims: Sequence[Claim]) -> Iterator[str]:
        """How scripts know claims."""
        return chain.from_iterable(
            (claim.queue.rq_name(self._default_model), claim.id, claim.execution) for claim in claims
        )


def _token() -> str:
    """Of a call that must not count twice: a repeat after a lost answer has the same."""
    return f"{secrets.token_hex(12)}-"
