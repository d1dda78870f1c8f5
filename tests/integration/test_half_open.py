"""Connections on which nothing comes any more, and which nobody closes: noticed by what does not come back."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Status
from promptq.contract.settings import ApiSettings, WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.listener import Listener
from promptq.queue.store import JobStore, connect
from tests.fakes import TimedStore, keys, submit
from tests.integration.apis import running, waiting
from tests.integration.test_api_server import finish_all
from tests.processes import wait_until, worker
from tests.proxy import Proxy

NOTICED_SECONDS = 12
"""Within this a silence is noticed, on a machine that is busy with other things."""


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[Proxy]:
    between = Proxy(server.port)
    yield between
    between.close()


@dataclass
class Heard:
    """What a listener told."""

    messages: list[str] = field(default_factory=list)
    connects: int = 0
    losses: int = 0

    def connected(self) -> None:
        self.connects += 1

    def lost(self) -> None:
        self.losses += 1


@pytest.fixture
def listening(proxy: Proxy) -> Iterator[Callable[[], Heard]]:
    """Starts a listener behind the proxy."""
    started: list[Listener] = []

    def start() -> Heard:
        heard = Heard()
        started.append(
            Listener(proxy.url, ["news"], lambda _, text: heard.messages.append(text), heard.connected, heard.lost)
        )
        started[-1].start()
        return heard

    yield start
    proxy.close()
    for listener in started:
        listener.close()
        listener.join(NOTICED_SECONDS)
        assert not listener.is_alive()


def test_a_silent_subscription_is_made_again_and_told_of_once(
    proxy: Proxy, listening: Callable[[], Heard], client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    heard = listening()
    wait_until(lambda: heard.connects == 1, 10, "the subscription")
    with caplog.at_level(logging.INFO, "promptq.queue.listener"):
        proxy.silence()
        client.publish("news", "lost")
        began = time.monotonic()
        wait_until(lambda: heard.connects == 2, NOTICED_SECONDS, "the new subscription")
        print(f"made again {time.monotonic() - began:.1f} s after the silence began")
    client.publish("news", "heard")
    wait_until(lambda: heard.messages == ["heard"], 10)
    assert heard.losses == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_quiet_subscription_is_left_alone(listening: Callable[[], Heard], client: redis.Redis) -> None:
    heard = listening()
    wait_until(lambda: heard.connects == 1, 10, "the subscription")
    time.sleep(7)  # longer than the silence that would end it
    client.publish("news", "heard")
    wait_until(lambda: heard.messages == ["heard"], 10)
    assert (heard.connects, heard.losses) == (1, 0)


def test_a_server_that_accepts_and_says_nothing_does_not_hold_the_subscription_for_ever(
    proxy: Proxy, listening: Callable[[], Heard]
) -> None:
    proxy.swallows_new = True
    heard = listening()
    wait_until(lambda: heard.losses, NOTICED_SECONDS, "the first try to be given up")
    proxy.swallows_new = False
    wait_until(lambda: heard.connects == 1, NOTICED_SECONDS, "the subscription")


def test_who_waits_for_a_job_hears_of_its_end(
    proxy: Proxy, client: redis.Redis, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = TimedStore(client, ApiSettings(_env_file=None, engine="echo"))
    with running(proxy, tmp_path) as api, ThreadPoolExecutor(1) as pool:
        url = api.submit().json()["urls"]["self"]
        answer = pool.submit(api.call, "GET", f"{url}?wait=50")
        wait_until(lambda: client.pubsub_numsub(keys.done_channel)[0][1] and waiting(api, 1), 10, "the poller")
        time.sleep(0.5)  # it has read the job once
        proxy.silence()
        ended = finish_all(queue)
        assert answer.result().json()["status"] == "succeeded"
        print(f"told {time.monotonic() - ended:.1f} s after the end")
        assert time.monotonic() - ended < NOTICED_SECONDS
        counted = "promptq_api_subscription_losses_total 1.0"
        wait_until(lambda: counted in api.call("GET", "/metrics").text, NOTICED_SECONDS, "the count")
    assert capfd.readouterr().err.count("The subscription is away") == 1


def test_a_worker_with_a_long_lease_sees_new_jobs_and_cancels(proxy: Proxy, client: redis.Redis) -> None:
    settings = WorkerSettings(_env_file=None, engine="echo", lease_seconds=600)
    store = TimedStore(client, settings)
    with worker(proxy, lease_seconds=600, echo_tokens_per_second=2):
        # It is registered; one that hears nothing while it still starts says so and ends.
        wait_until(lambda: client.pubsub_numsub(keys.wake_channel)[0][1], 30, "the worker to listen")
        proxy.silence()
        job = submit(store, "word " * 200, now=time.time(), cache=False, max_tokens=200).job
        began = time.monotonic()
        wait_until(lambda: store.get(job.id).status is Status.RUNNING, 2 * NOTICED_SECONDS, "the claim")
        print(f"claimed {time.monotonic() - began:.1f} s after the submit")
        proxy.silence()
        began = time.monotonic()
        store.cancel(job.id)
        wait_until(lambda: store.get(job.id).status is Status.CANCELLED, 2 * NOTICED_SECONDS, "the cancel")
        print(f"cancelled {time.monotonic() - began:.1f} s after it was asked for")


def test_no_lease_is_lost_to_a_silence_on_every_connection(proxy: Proxy, client: redis.Redis) -> None:
    """By default a lease lasts 15 s; what renews it must have given up, and have been heard, within that."""
    store = TimedStore(client, WorkerSettings(_env_file=None, engine="echo"))
    with worker(proxy, echo_tokens_per_second=5):
        job = submit(store, "word " * 125, now=time.time(), cache=False, max_tokens=125).job
        wait_until(lambda: store.get(job.id).status is Status.RUNNING, 10)
        proxy.silence()
        wait_until(lambda: store.reap() and store.get(job.id).status.is_terminal, 60, "the end")
        found = store.get(job.id)
    assert (found.status, found.attempts) == (Status.SUCCEEDED, 1)


def test_a_command_fails_in_time_and_the_next_one_goes_through(proxy: Proxy, client: redis.Redis) -> None:
    with connect(proxy.url, 0.5) as ours:
        store = JobStore(ours, WorkerSettings(_env_file=None))
        store.ping()
        proxy.silence()
        began = time.monotonic()
        with pytest.raises(RedisUnavailable):
            store.ping()
        assert time.monotonic() - began < 3
        store.ping()


def test_idle_connections_are_kept_alive_by_the_kernel(server: EmbeddedServer) -> None:
    with connect(server.url) as ours:
        ours.ping()
        (held,) = ours.connection_pool._available_connections
        assert held._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert held._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
