"""`python -m scaler` with real echo workers on a real server."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from promptq.contract.exit_codes import ExitCode
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from scaler.allocation import Share
from scaler.fleets.base import REASONS
from scaler.reasons import Reason
from tests.fakes import TimedStore, submit
from tests.integration.scalers import TEN_WORDS, Scaler, all_succeed, put, scaler
from tests.processes import start, wait_until


@pytest.fixture
def run(server: EmbeddedServer, store: TimedStore) -> Iterator[Callable[..., Scaler]]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(scaler(server, **settings))


def fed(running: Scaler, store: TimedStore, ids: list[str]) -> set[str]:
    """Two workers, however long the second one takes to start: until then the backlog stands."""

    def two() -> bool:
        if running.snapshot().queued < 20:
            ids.extend(put(store, 10))
        return len(running.workers()) == 2

    wait_until(two, 60, "a second worker")
    return running.workers()


def test_a_backlog_brings_a_second_worker_and_its_end_takes_it_away(
    run: Callable[..., Scaler], store: TimedStore
) -> None:
    running = run(max_workers=2)
    (first,) = running.has(1)
    ids = put(store, 40)
    names = fed(running, store, ids)
    all_succeed(store, ids)
    assert {store.client.hget(store.keys.job(job), "worker_name") for job in ids} == {name.encode() for name in names}
    assert running.has(1) < names
    assert first in names
    decisions = running.decisions()
    assert decisions["up", "below_min"] == 1
    assert decisions["up", "demand"] == 1
    assert decisions["down", "fewer_needed"] == 1
    assert decisions["hold", "steady"] > 0
    assert sum(count for (action, _), count in decisions.items() if action != "hold") == 3
    running.reaches('promptq_worker_exits_total{reason="retired"}', 1)
    running.reaches('promptq_worker_startup_seconds_count{model="echo"}', 2)


def test_a_killed_workers_jobs_come_back_and_it_is_replaced(run: Callable[..., Scaler], store: TimedStore) -> None:
    running = run(echo_tokens_per_second=4)
    (first,) = running.has(1)
    ids = put(store, 4)
    wait_until(lambda: running.snapshot().running == 4)
    os.kill(running.observer.workers()[0].pid, signal.SIGKILL)
    wait_until(lambda: first not in running.workers(), 10, "the dead worker's registration to go")
    assert running.has(1) != {first}
    all_succeed(store, ids)
    assert {store.get(job).attempts for job in ids} == {2}
    running.reaches('promptq_worker_exits_total{reason="killed"}', 1)
    assert running.value("promptq_lease_expiries_total") == 0
    running.reaches('promptq_jobs_requeued_total{reason="worker_lost"}', 4)
    assert running.decisions()["up", "below_min"] == 2


def test_the_lease_of_a_worker_that_was_seen_to_die_is_not_waited_for(
    run: Callable[..., Scaler], store: TimedStore
) -> None:
    """A kill -9 beside a worker that goes on: its jobs run again long before their leases end, the other's run on."""
    running = run(min_workers=2, max_workers=2, lease_seconds=120, echo_tokens_per_second=3, slots=2)
    running.has(2)
    ids = put(store, 4)
    wait_until(lambda: running.snapshot().running == 4)
    victim = running.observer.workers()[0]
    killed = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: sorted(store.get(job).attempts for job in ids) == [1, 1, 2, 2], 60, "the second attempts")
    seconds = time.monotonic() - killed
    print(f"running again {seconds:.2f} s after the kill, with a lease of 120 s")
    assert seconds < 60
    all_succeed(store, ids)
    assert sorted(store.get(job).attempts for job in ids) == [1, 1, 2, 2]


def test_nor_when_it_died_while_redis_was_away(own_server: EmbeddedServer, settings: WorkerSettings) -> None:
    """The others' leases are spared after an outage; a dead worker needs no grace."""
    slow = {"lease_seconds": 120, "echo_tokens_per_second": 3}
    with scaler(own_server, **slow) as running, connect(own_server.url) as client:
        store = TimedStore(client, settings)
        running.has(1)
        ids = put(store, 3)
        wait_until(lambda: running.snapshot().running == 3)
        victim = running.observer.workers()[0]
        own_server.stop()
        os.kill(victim.pid, signal.SIGKILL)
        running.reaches('promptq_worker_exits_total{reason="killed"}', 1)
        own_server.start()
        wait_until(lambda: [store.get(job).attempts for job in ids] == [2, 2, 2], 60, "the second attempts")
        all_succeed(store, ids)


def test_every_counter_begins_at_zero(run: Callable[..., Scaler]) -> None:
    """Or `increase()` would miss the first step of each."""
    running = run()
    running.has(1)
    counted = running.decisions()
    assert {reason for _, reason in counted} == {*Reason, *Share}
    assert counted["up", "wait"] == counted["down", "to_zero"] == counted["hold", "held_backoff"] == 0
    for reason in REASONS:
        assert running.value(f'promptq_worker_exits_total{{reason="{reason}"}}') == 0
    for reason in ("worker_lost", "drain", "retry"):
        assert running.value(f'promptq_jobs_requeued_total{{reason="{reason}"}}') == 0


def test_without_redis_the_number_is_held_and_then_goes_on(
    own_server: EmbeddedServer, settings: WorkerSettings
) -> None:
    with scaler(own_server, max_workers=2) as running:
        names = running.has(1)
        running.reaches('promptq_workers{model="echo",state="idle"}', 1, 30)
        own_server.stop()
        wait_until(lambda: running.decisions().get(("hold", "held_redis_down"), 0) > 3)
        assert len(running.children()) == 1
        assert "promptq_queue_jobs" not in running.get("/metrics")
        assert running.value('promptq_workers{model="echo",state="idle"}') == 1
        assert running.get("/livez")
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            running.get("/targets")
        refused.value.close()
        own_server.start()
        assert running.has(1) == names
        with connect(own_server.url) as client:
            store = TimedStore(client, settings)
            ids = put(store, 40)
            fed(running, store, ids)
            all_succeed(store, ids)
        running.reaches('promptq_queue_jobs{model="echo",queue="default",state="queued"}', 0)


def test_a_plain_rq_enqueue_is_seen_at_once(run: Callable[..., Scaler], client: redis.Redis, store: TimedStore) -> None:
    running = run(lease_seconds=600)
    running.has(1)
    time.sleep(1)
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    job = queue.enqueue("promptq.generate", prompt="one two")
    wait_until(lambda: store.get(job.id).status is Status.SUCCEEDED, 5, "the worker to be woken")


def test_workers_that_cannot_start_back_off_and_say_why(run: Callable[..., Scaler]) -> None:
    running = run(engine="continuous", model="/nowhere/at/all")
    told = wait_until(lambda: (seen := running.observer.fleet()) and seen.retry_at and seen, 60, "the first crash")
    assert "exited with code 4 (engine)" in told.trouble
    assert "/nowhere/at/all" in told.trouble
    assert told.retry_at > time.time() - 1
    wait_until(lambda: running.decisions().get(("hold", "held_backoff")), 10)
    running.reaches('promptq_workers_wanted{model="/nowhere/at/all"}', 1)


def test_the_last_worker_goes_and_comes_back(run: Callable[..., Scaler], store: TimedStore) -> None:
    running = run(min_workers=0, zero_delay_seconds=1)
    all_succeed(store, put(store, 1))
    running.has(0)
    assert json.loads(running.get("/targets")) == []
    all_succeed(store, put(store, 1))
    assert running.decisions()["up", "from_zero"] == 2
    assert running.decisions()["down", "to_zero"] >= 1


def test_cached_texts_are_counted_at_once(run: Callable[..., Scaler], store: TimedStore) -> None:
    running = run()
    all_succeed(store, [submit(store, prompt, now=time.time()).job.id for prompt in "aba"])
    running.reaches("promptq_cache_entries", 2)


def test_targets_lead_to_the_workers_metrics(run: Callable[..., Scaler]) -> None:
    running = run()
    (name,) = running.has(1)
    (target,) = json.loads(running.get("/targets"))
    assert target["labels"] == {"worker": name}
    with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=10) as reply:
        assert b"promptq_slots" in reply.read()


def test_sigterm_drains_every_worker(run: Callable[..., Scaler], store: TimedStore) -> None:
    running = run(max_workers=2, min_workers=2)
    running.has(2)
    ids = put(store, 8, TEN_WORDS * 3)
    wait_until(lambda: running.snapshot().running == 8)
    children = running.children()
    running.process.terminate()
    assert running.process.wait(20) == ExitCode.OK
    assert not any(child.is_running() for child in children)
    assert running.workers() == set()
    assert {(store.get(job).status, store.get(job).attempts) for job in ids} == {(Status.QUEUED, 0)}


def test_a_second_sigterm_kills(run: Callable[..., Scaler], store: TimedStore) -> None:
    running = run(echo_tokens_per_second=0.01)
    running.has(1)
    put(store, 1)
    wait_until(lambda: running.snapshot().running == 1)
    children = running.children()
    store.client.client_pause(5000)  # a drain takes no longer than its words with Redis
    running.process.terminate()
    time.sleep(0.5)
    assert running.process.poll() is None
    running.process.terminate()
    assert running.process.wait(10) == ExitCode.KILLED
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"min_workers": 3, "max_workers": 2}, "min_workers=3 is above max_workers=2"),
        ({"tick_seconds": "soon"}, "PROMPTQ_TICK_SECONDS"),
        ({"max_worker": 2}, "PROMPTQ_MAX_WORKER: unknown setting; did you mean PROMPTQ_MAX_WORKERS?"),
        ({"scaler_port": "taken"}, "PROMPTQ_SCALER_PORT: cannot listen on 127.0.0.1:"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(
    server: EmbeddedServer, capfd: pytest.CaptureFixture[str], settings: dict[str, Any], line: str
) -> None:
    if settings.get("scaler_port") == "taken":
        settings = {"scaler_port": server.port}
    assert start("scaler", server, **settings).wait(30) == ExitCode.SETTINGS
    said = [said for said in capfd.readouterr().err.splitlines() if " INFO " not in said]
    assert len(said) == 1
    assert line in said[0]


def test_when_the_scaler_is_killed_its_workers_drain(run: Callable[..., Scaler], store: TimedStore) -> None:
    """The kernel may send its signal once for each of the scaler's threads: they must not count as a second one."""
    running = run(max_workers=2, min_workers=2)
    running.has(2)
    ids = put(store, 8, TEN_WORDS * 2)
    wait_until(lambda: running.snapshot().running == 8)
    children = running.children()
    running.process.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert running.workers() == set()
    assert {(store.get(job).status, store.get(job).attempts) for job in ids} == {(Status.QUEUED, 0)}
