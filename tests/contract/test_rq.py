"""What we use of RQ 3.0, and what RQ's own tools must be able to do with our jobs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import rq.worker
import rq.worker_registration
from rq import Callback, Queue, Retry
from rq.job import Job as RqJob
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from promptq.contract.call import CONTEXT, FUNCTION
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import NOW, TimedStore, failure, keys, submit, success
from tests.processes import wait_until, worker


@pytest.fixture
def store(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """On the real server alone: RQ's command line reads it too."""
    return TimedStore(client, settings)


def fetch(client: redis.Redis, job_id: str) -> RqJob:
    return RqJob.fetch(job_id, connection=client, serializer=JSONSerializer)


def rq_cli(server: EmbeddedServer, *arguments: str) -> str:
    command = [str(Path(sys.executable).parent / "rq"), *arguments, "--url", server.url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def foreign(client: redis.Redis, function: str = "promptq.generate", **kwargs: object) -> RqJob:
    return Queue("default", connection=client, serializer=JSONSerializer).enqueue(function, **kwargs)


def test_the_rq_internals_that_we_lean_on_exist() -> None:
    for name in ("serialize", "register_birth", "register_death", "key", "worker_ttl"):
        assert name in inspect.getsource(rq.worker.BaseWorker), name
    assert list(inspect.signature(rq.worker_registration.register).parameters) == ["worker", "pipeline"]
    assert StartedJobRegistry.key_template == "rq:wip:{0}"


def test_job_fetch_reads_our_job(client: redis.Redis, store: TimedStore) -> None:
    job = submit(store, "hi", max_tokens=7, timeout_seconds=1.5).job
    seen = fetch(client, job.id)
    assert (seen.get_status(), seen.func_name, seen.kwargs) == (
        "queued",
        FUNCTION,
        {"prompt": "hi", "max_tokens": 7, CONTEXT: {"timeout_seconds": 1.5}},
    )
    assert seen.get_position() == 0
    (claim,) = store.claim("w", 1, NOW)
    assert (fetch(client, job.id).get_status(), fetch(client, job.id).worker_name) == ("started", "w")
    store.finish("w", [success(claim, "Paris")], NOW)
    seen = fetch(client, job.id)
    assert seen.get_status() == "finished"
    assert seen.return_value()["output"] == {"text": "Paris", "finish_reason": "stop"}


def test_a_failure_shows_its_reason_to_rq(client: redis.Redis, store: TimedStore) -> None:
    job = submit(store).job
    store.finish("w", [failure(store.claim("w", 1, NOW)[0])], NOW)
    assert fetch(client, job.id).latest_result().exc_string == "engine_error: It broke."


def test_rq_info_shows_everything_and_harms_no_lease(
    server: EmbeddedServer, client: redis.Redis, store: TimedStore
) -> None:
    import time

    now = time.time()
    submit(store, cache=False, now=now)
    running = submit(store, cache=False, now=now).job
    store.release(store.claim("w", 1, now), now)
    with worker(server, "info-worker", echo_tokens_per_second=0.001):
        wait_until(lambda: store.get(running.id).status is Status.RUNNING)
        # A worker says its state four times a second at most.
        wait_until(lambda: "busy" in rq_cli(server, "info"))
        shown = rq_cli(server, "info")
        assert "default" in shown
        assert "2 executing" in shown
        assert "info-worker" in shown
    assert store.get(running.id).status is Status.RUNNING
    assert client.zcard(keys.wip("default")) == 2


def test_rq_cleanup_leaves_an_expired_lease_to_our_reaper(client: redis.Redis, store: TimedStore) -> None:
    import time

    now = time.time() - store.settings.lease_seconds - 60
    job = submit(store, now=now).job
    store.claim("w", 1, now)
    StartedJobRegistry("default", connection=client, serializer=JSONSerializer).cleanup()
    assert fetch(client, job.id).get_status() == "started"
    assert store.reap(time.time()).requeued == 1


def test_a_job_put_in_by_plain_rq_is_run(server: EmbeddedServer, client: redis.Redis, store: TimedStore) -> None:
    with worker(server):
        job = foreign(client, prompt="alpha beta", max_tokens=1)
        store.wake()
        wait_until(lambda: fetch(client, job.id).get_status() == "finished")
    assert fetch(client, job.id).return_value()["output"] == {"text": "alpha", "finish_reason": "length"}
    assert store.get(job.id).result.text == "alpha"


def test_a_job_that_cannot_be_run_as_it_is_fails_with_the_reason(
    server: EmbeddedServer, client: redis.Redis, store: TimedStore
) -> None:
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    jobs = [
        queue.enqueue("promptq.generate", "positional"),
        queue.enqueue("promptq.generate", prompt="x", colour="red"),
        queue.enqueue("promptq.generate", prompt="x", on_success=Callback("os.system")),
        queue.enqueue("promptq.generate", prompt="x", retry=Retry(max=3)),
        Queue("default", connection=client).enqueue("promptq.generate", prompt="x"),
    ]
    with worker(server):
        store.wake()
        wait_until(lambda: all(store.get(job.id).status is Status.FAILED for job in jobs))
    messages = [store.get(job.id).error.message for job in jobs]
    assert "keyword arguments only" in messages[0]
    assert messages[1].startswith("colour:")
    assert "success_callback_name" in messages[2]
    assert "retries_left" in messages[3]
    assert "JSONSerializer" in messages[4]


def test_rq_requeue_brings_a_failed_job_back(server: EmbeddedServer, client: redis.Redis, store: TimedStore) -> None:
    job = submit(store, "one two").job
    store.finish("w", [failure(store.claim("w", 1, NOW)[0])], NOW)
    assert re.search(
        r"Requeueing 1 jobs",
        rq_cli(server, "requeue", "--queue", "default", "-S", "rq.serializers.JSONSerializer", job.id),
    )
    assert store.get(job.id).status is Status.QUEUED
    with worker(server):
        wait_until(lambda: store.get(job.id).status is Status.SUCCEEDED)
    seen = store.get(job.id)
    assert (seen.result.text, seen.error, seen.attempts) == ("one two", None, 1)


def test_a_cancelled_job_that_rq_queues_again_is_read_whole(client: redis.Redis, store: TimedStore) -> None:
    """We had admitted it as a plain one; what RQ adds must be seen all the same, and its end no longer be near."""
    job = submit(store).job
    store.cancel(job.id, NOW)
    again = fetch(client, job.id)
    again._success_callback_name = "os.system"
    Queue("default", connection=client, serializer=JSONSerializer).enqueue_job(again)
    (claim,) = store.claim("w", 1, NOW)
    assert (claim.id, client.ttl(keys.job(job.id))) == (job.id, -1)
    assert claim.refusal is not None
    assert "success_callback_name" in claim.refusal.message


@pytest.mark.parametrize("running", [False, True])
def test_a_job_cancelled_through_rq_stays_cancelled(client: redis.Redis, store: TimedStore, running: bool) -> None:
    job = submit(store).job
    claims = store.claim("w", 1, NOW) if running else []
    fetch(client, job.id).cancel()
    assert store.finish("w", [success(claim) for claim in claims], NOW) == [False] * len(claims)
    assert store.claim("w", 1, NOW) == []
    assert store.get(job.id).status is Status.CANCELLED
    assert client.zcard(keys.wip("default")) == 0
