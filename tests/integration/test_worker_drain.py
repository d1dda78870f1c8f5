"""A worker that is told to stop while a claim is under way."""

from __future__ import annotations

import threading
import time

import redis
from prometheus_client import CollectorRegistry

from gpu_worker.assembly import Worker
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.registration import WorkerRegistration
from gpu_worker.telemetry import Telemetry
from promptq.contract.job import Status
from promptq.contract.metrics import WorkerMetrics
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import ANY, Claim, JobStore, Terms
from promptq.runtime.lifecycle import Stop
from tests.fakes import TimedStore, submit


class SlowStore(JobStore):
    """The answers to its claims take a while on their way."""

    claimed = threading.Event()

    def claim(self, worker: str, count: int, terms: Terms = ANY) -> list[Claim]:
        claims = super().claim(worker, count, terms)
        if claims:
            self.claimed.set()
            time.sleep(1.0)
        return claims


def test_what_the_claim_brings_is_given_back_at_once(
    server: EmbeddedServer, client: redis.Redis, store: TimedStore, settings: WorkerSettings
) -> None:
    settings = settings.model_copy(update={"redis_url": server.url, "drain_seconds": 0.1, "lease_seconds": 60})
    engine, stop, slow = EchoEngine(4, 1000.0), Stop(), SlowStore(client, settings)
    telemetry = Telemetry(WorkerMetrics(CollectorRegistry()), engine)
    worker = Worker(slow, engine, WorkerRegistration(store, settings, engine.info, "http://x"), telemetry, settings)
    job = submit(store, cache=False, now=time.time()).job
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    assert slow.claimed.wait(10)
    stop.request()
    thread.join(30)
    seen = store.get(job.id)
    assert (seen.status, seen.attempts) == (Status.QUEUED, 0)


def test_no_token_is_generated_twice(
    server: EmbeddedServer, client: redis.Redis, store: TimedStore, settings: WorkerSettings
) -> None:
    words = " ".join(map(str, range(60)))
    settings = settings.model_copy(update={"redis_url": server.url, "checkpoint_seconds": 0})
    ids = [submit(store, words, cache=False, now=time.time()).job.id for _ in range(8)]
    generated = 0.0
    while not all(store.get(job_id).status.is_terminal for job_id in ids):
        engine, stop, registry = EchoEngine(8, 40.0), Stop(), CollectorRegistry()
        telemetry = Telemetry(WorkerMetrics(registry), engine)
        registration = WorkerRegistration(store, settings, engine.info, "http://x")
        thread = threading.Thread(target=Worker(store, engine, registration, telemetry, settings).run, args=(stop,))
        thread.start()
        time.sleep(0.6)
        stop.request()
        thread.join(30)
        generated += registry.get_sample_value("promptq_tokens_total", {"model": "echo", "type": "completion"}) or 0
    results = [store.get(job_id).result for job_id in ids]
    assert [(result.text, result.moves > 0) for result in results if result] == [(words, True)] * 8
    assert generated == 8 * 60
