"""A server that is full, forgets its scripts, drops connections or stalls: retried or reported, nothing lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import JobStore, connect
from tests.fakes import NOW, TimedStore, failure, keys, places, ran, submit, success
from tests.processes import wait_until, worker

LEASE = 1.0


@pytest.fixture
def store(own_server: EmbeddedServer, settings: WorkerSettings) -> Iterator[JobStore]:
    with connect(own_server.url) as client:
        yield TimedStore(client, settings.model_copy(update={"lease_seconds": LEASE}))


def full(client: redis.Redis, yes: bool = True) -> None:
    client.config_set("maxmemory", 1 if yes else 0)


def test_without_a_right_to_the_channels_every_transition_is_made_whole(store: TimedStore) -> None:
    store.client.execute_command("ACL", "SETUSER", "default", "resetchannels")
    ended, cancelled, failed = (submit(store, cache=False).job for _ in range(3))
    claims = store.claim("w", 1, NOW)
    store.cancel(cancelled.id, NOW)
    assert store.finish("w", [success(claim) for claim in claims], NOW) == [True]
    store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW)], NOW)
    store.retry(failed.id, NOW)
    assert [store.get(job.id).status for job in (ended, cancelled, failed)] == [
        Status.SUCCEEDED, Status.CANCELLED, Status.QUEUED,
    ]  # fmt: skip
    assert len(places(store, failed.id)) == 1
    with pytest.raises(RedisUnavailable, match=r"permissions"):
        store.wake()


class TestFull:
    def test_a_submit_is_refused_and_writes_nothing(self, store: TimedStore) -> None:
        full(store.client)
        with pytest.raises(RedisUnavailable, match="full"):
            submit(store)
        assert store.client.dbsize() == 0
        full(store.client, False)
        assert submit(store).outcome == "new"

    def test_what_was_admitted_goes_its_way(self, store: TimedStore) -> None:
        jobs = [submit(store, cache=False).job for _ in range(5)]
        full(store.client)
        claims = store.claim("w", 4, NOW)
        assert store.renew(claims, NOW) == ["ok"] * 4
        assert store.finish("w", [success(claims[0])], NOW) == [True]
        assert store.release([claims[1]], NOW) == 1
        assert store.cancel(jobs[4].id, NOW) is Status.CANCELLED
        assert store.reap(NOW + 10).requeued == 2
        states = [store.get(job.id).status.value for job in jobs]
        assert states == ["succeeded", "queued", "queued", "queued", "cancelled"]

    def test_progress_is_refused_and_kept_once_when_there_is_room(self, store: TimedStore) -> None:
        submit(store, cache=False)
        (claim,) = store.claim("w", 1, NOW)
        full(store.client)
        with pytest.raises(RedisUnavailable, match="full"):
            ran(store, claim, 0, (1, 2), "ab")
        full(store.client, False)
        assert [ran(store, claim, 0, (1, 2), "ab") for _ in range(2)] == ["ok", "ok"]
        assert store.client.xlen(keys.progress(claim.id)) == 1

    def test_a_retry_is_refused_and_writes_nothing(self, store: TimedStore) -> None:
        job = submit(store).job
        store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW)], NOW)
        full(store.client)
        with pytest.raises(RedisUnavailable, match="full"):
            store.retry(job.id, NOW)
        full(store.client, False)
        assert (store.get(job.id).status, places(store, job.id)) == (Status.FAILED, [keys.failed("default")])

    def test_a_worker_keeps_its_leases_and_ends_its_jobs(self, own_server: EmbeddedServer, store: TimedStore) -> None:
        with worker(own_server, lease_seconds=LEASE, echo_tokens_per_second=5) as process:
            job = submit(store, "word " * 12, now=time.time(), cache=False).job
            wait_until(lambda: store.get(job.id).status is Status.RUNNING, 10)
            full(store.client)
            deadline = time.monotonic() + 30
            while not store.get(job.id).status.is_terminal and time.monotonic() < deadline:
                store.reap(time.time())
                time.sleep(0.1)
            seen = store.get(job.id)
            assert (seen.status, seen.attempts) == (Status.SUCCEEDED, 1)
            full(store.client, False)
            after = submit(store, now=time.time(), cache=False).job
            wait_until(lambda: store.get(after.id).status is Status.SUCCEEDED, 10)
            assert process.poll() is None


def test_forgotten_scripts_are_sent_again(store: TimedStore) -> None:
    job = submit(store).job
    store.client.script_flush()
    claims = store.claim("w", 1, NOW)
    store.client.script_flush()
    assert store.finish("w", [success(claims[0])], NOW) == [True]
    assert store.get(job.id).status is Status.SUCCEEDED


def test_dropped_connections_are_made_again(store: TimedStore) -> None:
    for _ in range(5):
        with connect(_url(store)) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert submit(store, cache=False).outcome == "new"


def test_a_stalled_server_is_reported_in_time(own_server: EmbeddedServer, settings: WorkerSettings) -> None:
    with connect(own_server.url, 0.3) as client, connect(own_server.url) as other:
        store = TimedStore(client, settings)
        submit(store, cache=False)
        other.client_pause(1000)
        began = time.monotonic()
        with pytest.raises(RedisUnavailable):
            submit(store, cache=False)
        assert time.monotonic() - began < 0.9
        time.sleep(1)
        assert submit(store, cache=False).outcome == "new"


def _url(store: TimedStore) -> str:
    options = store.client.get_connection_kwargs()
    return f"redis://{options['host']}:{options['port']}/0"
