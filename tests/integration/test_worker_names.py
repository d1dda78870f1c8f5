"""A worker's name after its process has died, or was silent for too long."""

from __future__ import annotations

import os
import signal
import time

import pytest
import redis

from gpu_worker.engines.echo import EchoEngine
from gpu_worker.registration import WorkerRegistration
from promptq.contract.exit_codes import ExitCode
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore, connect
from tests.fakes import TimedStore, keys, submit
from tests.processes import start, wait_until, worker

LEASE = 2.0


@pytest.fixture
def short(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    return TimedStore(client, settings.model_copy(update={"lease_seconds": LEASE}))


def instance(client: redis.Redis, name: str) -> object:
    return client.hget(keys.worker(name), "instance")


def test_a_killed_worker_s_name_is_taken_over_within_a_lease_and_its_job_is_redone(
    server: EmbeddedServer, short: TimedStore
) -> None:
    job = submit(short, "word " * 20, cache=False, now=time.time()).job
    with worker(server, "host-1", lease_seconds=LEASE, echo_tokens_per_second=4) as first:
        wait_until(lambda: short.get(job.id).status is Status.RUNNING, 30, "the first run")
        first.kill()
        first.wait()
    old = instance(short.client, "host-1")
    second = start("gpu_worker", server, worker_name="host-1", lease_seconds=LEASE)
    try:
        wait_until(lambda: instance(short.client, "host-1") != old or second.poll() is not None, 30, "the second")
        wait_until(lambda: short.get(job.id).status is Status.SUCCEEDED, 30, "the job")
        assert short.get(job.id).attempts == 2
    finally:
        second.kill()
        second.wait()


def test_a_worker_that_was_silent_and_comes_back_ends_and_harms_nothing(
    server: EmbeddedServer, short: TimedStore
) -> None:
    with worker(server, "host-1", lease_seconds=LEASE) as first:
        old = instance(short.client, "host-1")
        os.kill(first.pid, signal.SIGSTOP)
        second = start("gpu_worker", server, worker_name="host-1", lease_seconds=LEASE)
        try:
            wait_until(lambda: instance(short.client, "host-1") not in (None, old), 30, "the second")
            new = instance(short.client, "host-1")
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait(30) == ExitCode.WORKER_REPLACED
            assert instance(short.client, "host-1") == new
            job = submit(short, "one", cache=False, now=time.time()).job
            wait_until(lambda: short.get(job.id).status is Status.SUCCEEDED, 30, "a job of the second")
        finally:
            second.kill()
            second.wait()


def test_names_that_nobody_chose_differ_also_on_one_host_and_process_id(server: EmbeddedServer) -> None:
    """As in two containers with one host name, where every process has the id 1."""
    settings = WorkerSettings(_env_file=None, redis_url=server.url)
    with connect(server.url) as client:
        store = JobStore(client, settings)
        names = {WorkerRegistration(store, settings, EchoEngine(1, 1.0).info, "http://x").name for _ in range(3)}
    assert len(names) == 3


def test_a_registration_that_is_lost_comes_back(server: EmbeddedServer, client: redis.Redis) -> None:
    """As after an eviction."""
    observer = Observer(client, WorkerSettings(_env_file=None))
    with worker(server, "w1", lease_seconds=LEASE):
        client.delete(keys.worker("w1"), keys.workers(), keys.workers_of("default"))
        wait_until(lambda: [seen.name for seen in observer.workers()] == ["w1"], 10, "the registration")
        wait_until(lambda: client.sismember(keys.workers(), keys.worker("w1")), 10, "RQ's own set")
