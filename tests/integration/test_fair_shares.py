"""Ten jobs of one API key beside many of another, on a real server and with a real worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import redis
from prometheus_client import CollectorRegistry

from gpu_worker.assembly import Worker
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.registration import WorkerRegistration
from gpu_worker.telemetry import Telemetry
from promptq.contract.job import Job
from promptq.contract.metrics import WorkerMetrics
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import JobStore
from promptq.runtime.lifecycle import Stop
from tests.fakes import new_job
from tests.processes import wait_until

MANY, FEW, SLOTS = 200, 10, 2


@contextmanager
def working(store: JobStore, settings: WorkerSettings) -> Iterator[None]:
    """A worker at work, in a thread of this process."""
    engine, stop = EchoEngine(SLOTS, 500.0), Stop()
    registration = WorkerRegistration(store, settings, engine.info, "http://x")
    telemetry = Telemetry(WorkerMetrics(CollectorRegistry()), engine)
    thread = threading.Thread(target=Worker(store, engine, registration, telemetry, settings).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join(30)


def submit(store: JobStore, owner: str, jobs: int) -> list[str]:
    model = store.settings.default_model
    news = [replace(new_job(f"{owner} {n}", max_tokens=4, cache=False), owner=owner, model=model) for n in range(jobs)]
    store.submit_many(news)
    return [new.id for new in news]


def ended(store: JobStore, ids: list[str]) -> list[Job] | None:
    jobs = [job for job in store.get_many(ids) if job and job.status.is_terminal]
    return jobs if len(jobs) == len(ids) else None


def test_few_jobs_wait_at_most_twice_what_they_would_alone(server: EmbeddedServer, client: redis.Redis) -> None:
    """In the jobs of one size that are begun before them, which is time on any machine."""
    settings = WorkerSettings(_env_file=None, engine="echo", redis_url=server.url)
    store = JobStore(client, settings)
    with working(store, settings):
        many = submit(store, "many", MANY)
        wait_until(lambda: ended(store, many[:SLOTS]))
        running = client.zcard(store.keys.wip("default"))
        few = submit(store, "few", FEW)
        last = max(job.started_at or 0.0 for job in wait_until(lambda: ended(store, few)))
        asked = min(job.created_at for job in store.get_many(few) if job)
        others = [job for job in store.get_many(many) if job and asked < (job.started_at or 0.0) < last]
        assert running
        assert len(others) <= FEW
        assert client.llen(store.keys.queue("default")), "the many were not done anyhow"
