"""What the hot paths cost in round trips, counted by a real server."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from promptq.contract.keys import usage_prelude
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.scripts import PARTS, source
from tests.fakes import NOW, TimedStore, keys, new_job, submit, success
from tests.integration.apis import running
from tests.processes import wait_until, worker

GREETING = ("hello", "client")
"""What a new connection says once."""
STATE = {hashlib.sha1(source(name, keys).encode()).hexdigest() for name in ("register", "unregister")}
"""A worker's state is written on a thread that nothing waits for."""
FLEET = keys.fleet()
"""What the scaler says, which a process of the API reads at most once a second, however many ask it."""
PROCESSES = 2


@contextmanager
def counting(client: redis.Redis) -> Iterator[Counter[str]]:
    """Commands that clients send meanwhile, by name, but those that a script calls, and a state. Those of the fleet are
    not counted either, but held to what they are allowed."""
    counted: Counter[str] = Counter()
    looks, begun = 0, time.monotonic()
    with client.monitor() as monitor:
        yield counted
        seconds = time.monotonic() - begun
        client.echo("the end")
        for command in monitor.listen():
            words = command["command"].lower().split()
            if words[0] == "echo":
                break
            if command["client_type"] == "lua" or words[0] in GREETING or STATE & {*words}:
                continue
            if FLEET in words:
                looks += 1
            else:
                counted[words[0]] += 1
    assert looks <= PROCESSES * (1 + seconds)


@pytest.fixture
def warm(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """A store whose scripts the server knows; and those of the programs that are started here, with another model."""
    store = TimedStore(client, settings)
    for name in PARTS:
        client.script_load(source(name, keys, usage_prelude("echo", settings.usage_days)))
    submit(store, "warm-up")
    store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
    store.get_many(["x"])
    return store


@pytest.mark.parametrize("size", [1, 8, 32])
def test_the_store_takes_one_for_each_call_whatever_the_batch(warm: TimedStore, size: int) -> None:
    for call in ("submit", "claim", "finish", "read"):
        with counting(warm.client) as counted:
            if call == "submit":
                ids = [one.job.id for one in warm.submit_many([new_job(str(i)) for i in range(size)], NOW)]
            elif call == "claim":
                claims = warm.claim("w", size, NOW)
            elif call == "finish":
                assert warm.finish("w", [success(claim) for claim in claims], NOW) == [True] * size
            else:
                assert len([job for job in warm.get_many(ids) if job]) == size
        assert counted == {"evalsha": 1}, call


@pytest.mark.parametrize(("cache", "most"), [(False, 15.1), (True, 23.5)])
def test_a_job_of_a_batch_costs_few_commands(warm: TimedStore, cache: bool, most: float) -> None:
    """From submit to finish, those that the scripts call included: what one job of 32 has no part of is called once."""

    def called() -> int:
        stats: Any = warm.client.info("commandstats")
        return sum(row["calls"] for row in stats.values())

    before = called()
    warm.submit_many([new_job(str(i), cache=cache) for i in range(32)], NOW)
    assert warm.finish("w", [success(claim) for claim in warm.claim("w", 32, NOW)], NOW) == [True] * 32
    assert 8 < (called() - before) / 32 <= most


@pytest.mark.parametrize("size", [1, 8, 32])
def test_a_worker_takes_two_for_each_batch(server: EmbeddedServer, warm: TimedStore, size: int) -> None:
    batches = 12
    now = time.time()
    for _ in range(batches):
        warm.submit_many([new_job(f"p{i}", cache=False) for i in range(size)], now)
    done, at_once = keys.finished("default"), {"lease_seconds": 600, "echo_tokens_per_second": 0}
    with counting(warm.client) as counted, worker(server, slots=size, **at_once) as process:
        wait_until(lambda: warm.client.zcard(done) >= batches * size + 1, what="the jobs")
        process.terminate()
        process.wait(20)
    # Once each: the claim that finds nothing, a look when the subscription begins, the first renewal and its look.
    assert 0 < counted["evalsha"] <= 2 * batches + 4
    assert warm.client.zcard(done) == batches * size + 1


def test_the_api_takes_one_for_a_submit_and_one_for_a_poll(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    with running(server, tmp_path) as api:

        def sent(method: str, path: str, **options: Any) -> Counter[str]:
            with counting(client) as counted:
                assert api.call(method, path, **options).ok
            return counted

        first = api.submit("first").json()["id"]
        for _ in range(8):  # both processes have their connections
            api.call("GET", f"/v1/jobs/{first}")
        ids = [api.submit(str(i)).json()["id"] for i in range(20)]
        assert sent("POST", "/v1/jobs", json={"prompt": "x"}) == {"evalsha": 1}
        assert sent("POST", "/v1/jobs", json={"prompt": "x"}, headers={"Idempotency-Key": "k"}) == {"evalsha": 1}
        assert sent("GET", f"/v1/jobs/{first}") == {"evalsha": 1}
        assert sent("GET", f"/v1/jobs?ids={','.join(ids)}") == {"evalsha": 1}
        many = {"jobs": [{"prompt": f"p{i}", "cache": False} for i in range(1000)]}
        assert sent("POST", "/v1/jobs:batch", json=many) == {"evalsha": 10}
        assert client.llen(keys.queue("default")) == 1022
        answer = api.call("POST", "/v1/jobs:batch", json={"jobs": [{"prompt": "ok"}, {"prompt": ""}]}).json()
        assert (answer["accepted"], answer["items"][1]["error"]["param"]) == (1, "prompt")


def test_submits_that_come_together_share_round_trips(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    with running(server, tmp_path) as api, ThreadPoolExecutor(64) as pool:
        api.submit("first")
        with counting(client) as counted:
            client.client_pause(500)  # so that all have come when the first one's reply does
            answers = list(pool.map(lambda n: api.submit(f"prompt {n}"), range(48)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 48
        assert client.llen(keys.queue("default")) == 49
        assert counted["evalsha"] <= 16
