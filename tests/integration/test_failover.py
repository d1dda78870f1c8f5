"""Failover to another server behind the one address in PROMPTQ_REDIS_URL: nobody is restarted, nothing is lost."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.integration.apis import Api, running
from tests.processes import start, wait_until
from tests.proxy import Proxy

SCALER = {
    "lease_seconds": 2, "tick_seconds": 0.2, "slots": 4, "echo_tokens_per_second": 10, "min_workers": 1,
    "max_workers": 1, "drain_seconds": 2, "scaler_port": 0,
}  # fmt: skip


class Pair:
    """A primary and its replica, and the address under which clients find whichever serves."""

    def __init__(self, folder: Path) -> None:
        self.primary = EmbeddedServer(folder / "primary").start()
        follow = ("--replicaof", f"127.0.0.1 {self.primary.port}", "--repl-diskless-sync-delay", "0")
        self.replica = EmbeddedServer(folder / "replica", options=follow).start()
        self.proxy = Proxy(self.primary.port)
        self.url = self.proxy.url
        with connect(self.replica.url) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", 30, "the replica to follow")

    def settle(self) -> None:
        """What has been written until now is on both."""
        with connect(self.primary.url) as client:
            assert client.wait(1, 10_000) == 1

    def crash(self) -> None:
        """The primary dies, the replica is promoted, and the address leads there."""
        self.primary.stop(kill=True)
        time.sleep(1)
        self._promote()

    def swap(self) -> None:
        """The primary becomes the replica, and keeps every connection that clients have to it."""
        self._promote()
        with connect(self.primary.url) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(self.replica.port))

    def _promote(self) -> None:
        with connect(self.replica.url) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.proxy.target = self.replica.port

    def stop(self) -> None:
        """Everything, at once."""
        self.proxy.close()
        for server in (self.primary, self.replica):
            server.stop(kill=True)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    servers = Pair(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def api(pair: Pair, tmp_path: Path) -> Iterator[Api]:
    """The API, and a scaler with one worker, on the proxy's address."""
    scaler = start("scaler", pair, **SCALER)
    try:
        with running(pair, tmp_path / "api") as api:
            wait_until(lambda: api.call("GET", "/v1/workers").json()["workers"], 30, "the worker")
            yield api
    finally:
        scaler.send_signal(signal.SIGQUIT)
        scaler.wait()


def put(api: Api, key: str, seen: Counter[int]) -> str:
    """Submit under a key until it is acknowledged, as a client should."""

    def attempt() -> str | None:
        body = {"prompt": "one two three four five", "cache": False}
        answer = api.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
        seen[answer.status_code] += 1
        return answer.json()["id"] if answer.status_code == 202 else time.sleep(0.05)

    return str(wait_until(attempt, 30, "the acknowledgement"))


def end_of(api: Api, job_id: str) -> str:
    def look() -> str | None:
        answer: requests.Response = api.call("GET", f"/v1/jobs/{job_id}?wait=2")
        assert answer.status_code in (200, 503), answer.text
        status = answer.json().get("status")
        return status if status in ("succeeded", "failed") else time.sleep(0.05)

    return str(wait_until(look, 60, f"the end of {job_id}"))


@pytest.mark.parametrize("how", [Pair.crash, Pair.swap], ids=["the primary dies", "the primary is made a replica"])
def test_everybody_follows_to_the_new_primary(
    pair: Pair, api: Api, how: Callable[[Pair], None], capfd: pytest.CaptureFixture[str]
) -> None:
    seen: Counter[int] = Counter()
    before = [put(api, f"before-{i}", seen) for i in range(12)]
    assert set(seen) == {202}
    pair.settle()
    how(pair)
    moved = time.monotonic()
    after = [put(api, f"after-{i}", seen) for i in range(6)]
    print(f"a submit was acknowledged {time.monotonic() - moved:.2f} s after the move: {dict(seen)}")
    assert {end_of(api, job_id) for job_id in (*before, *after)} == {"succeeded"}
    print(f"all had ended {time.monotonic() - moved:.2f} s after the move")
    assert set(seen) <= {202, 503}
    with connect(pair.replica.url) as new:
        assert {new.hget(f"rq:job:{job_id}", "status") for job_id in after} == {b"finished"}
        assert count_keys(new) == []
    assert "Traceback" not in capfd.readouterr().err


def count_keys(client: redis.Redis) -> list[bytes]:
    """What is still queued or leased."""
    return [key for kind in ("queue", "wip") for key in client.scan_iter(f"rq:{kind}:*")]
