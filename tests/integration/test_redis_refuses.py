"""A server that answers, but with a refusal: every program says so in its own way, and none calls it a bug."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from api.app import create_app
from promptq.contract.errors import RedisUnavailable
from promptq.contract.settings import ApiSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.store import connect
from scaler.metrics_server import QueueCollector
from scaler.metrics_server import create_app as create_scaler_app
from tests.fakes import SETTINGS, TimedStore, submit
from tests.processes import wait_until

READS = (
    ("GET", "/v1/jobs/known"), ("GET", "/v1/jobs/known?wait=1"), ("GET", "/v1/jobs?status=failed"),
    ("GET", "/v1/queues"), ("GET", "/v1/workers"), ("GET", "/v1/activity"), ("GET", "/readyz"),
)  # fmt: skip
WRITES = (
    ("POST", "/v1/jobs", {"prompt": "x"}), ("PUT", "/v1/jobs/mine", {"prompt": "x"}),
    ("POST", "/generate", {"prompt": "x"}),
)  # fmt: skip


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[EmbeddedServer]:
    running = EmbeddedServer(folder, options=options).start()
    try:
        yield running
    finally:
        running.stop(kill=True)  # one that cannot write its snapshot would not end


def callers(url: str) -> tuple[FlaskClient, FlaskClient]:
    """The API and the scaler's web server, both on that address."""
    settings = ApiSettings(_env_file=None, redis_url=url, engine="echo", redis_timeout_seconds=1)
    observer = Observer(connect(url, 1.0), SETTINGS)
    registry = CollectorRegistry()
    registry.register(QueueCollector(observer))
    return create_app(settings).test_client(), create_scaler_app(registry, observer, "here").test_client()


def expect_refusals(url: str, word: str, reads_work: bool) -> None:
    """503 for what cannot be done, 200 for the rest: never a 5xx that blames ourselves, and no scrape that fails."""
    api, scaler = callers(url)
    for method, path, body in WRITES:
        answer = api.open(path, method=method, json=body)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "1"), (path, answer.text)
        assert answer.json["error"]["type"] == "redis_unavailable"
        assert word in answer.json["error"]["message"]
    expected = 200 if reads_work else 503
    for method, path in READS:
        answer = api.open(path, method=method)
        # Nobody serves here, so it is not ready in any case.
        assert answer.status_code == (503 if path == "/readyz" else expected), (path, answer.text)
    assert scaler.get("/targets").status_code == expected
    assert scaler.get("/metrics").status_code == 200
    assert ("promptq_queue_jobs" in scaler.get("/metrics").text) == reads_work
    assert api.get("/metrics").status_code == 200
    assert api.get("/livez").status_code == 200


def own_address() -> str | None:
    """An IPv4 address of this machine that is not loopback."""
    found = (a.address for list_ in psutil.net_if_addrs().values() for a in list_ if a.family == socket.AF_INET)
    return next((address for address in found if not address.startswith("127.")), None)


def prepared(server: EmbeddedServer) -> redis.Redis:
    """A client that stays connected, and a job under a known id."""
    client = connect(server.url)
    submit(TimedStore(client, ApiSettings(_env_file=None)), job_id="known", now=time.time(), cache=False)
    return client


def read_only(client: redis.Redis) -> None:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")


def stale(client: redis.Redis) -> None:
    read_only(client)
    client.config_set("replica-serve-stale-data", "no")


def unsaved(client: redis.Redis) -> None:
    """Its last snapshot failed: a folder stands where the file should go."""
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 20, "the snapshot to fail")


def without_rights(client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-@all", "+@connection")


TROUBLES: list[tuple[str, Callable[[redis.Redis], object], str, bool]] = [
    ("full", lambda client: client.config_set("maxmemory", 1), "full", True),
    ("read only", read_only, "read only", True),
    ("stale", stale, "Link with", False),
    ("too few replicas", lambda client: client.config_set("min-replicas-to-write", 1), "NOREPLICAS", True),
    ("unsaved", unsaved, "MISCONF", True),
    ("password", lambda client: client.config_set("requirepass", "geheim"), "password", False),
    ("rights", without_rights, "permissions", False),
]


@pytest.mark.parametrize(("trouble", "word", "reads_work"), [t[1:] for t in TROUBLES], ids=[t[0] for t in TROUBLES])
def test_a_refusal_is_503_everywhere(
    tmp_path: Path, trouble: Callable[[redis.Redis], object], word: str, reads_work: bool
) -> None:
    (tmp_path / "taken.rdb").mkdir()
    with serving(tmp_path, "--dbfilename", "taken.rdb") as server, prepared(server) as client:
        trouble(client)
        expect_refusals(server.url, word, reads_work)


def test_a_database_that_the_server_lacks_is_503_everywhere(tmp_path: Path) -> None:
    with serving(tmp_path) as server, prepared(server):
        expect_refusals(f"{server.url.rpartition('/')[0]}/99", "DB index", reads_work=False)


def test_protected_mode_is_503_everywhere(tmp_path: Path) -> None:
    """What a server with neither password nor bind address says to everybody from another machine."""
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback, so nobody is refused")
    with serving(tmp_path, "--bind", "*", "--protected-mode", "yes") as server, prepared(server):
        expect_refusals(server.url.replace("127.0.0.1", address), "DENIED", reads_work=False)


def test_loading_is_503_and_then_over(tmp_path: Path) -> None:
    with serving(tmp_path) as server, prepared(server) as client, client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.set(f"filler:{number}", number, ex=600)
        pipe.execute()
    slow = EmbeddedServer(tmp_path, options=("--key-load-delay", "150"))
    starting = threading.Thread(target=slow.start)
    starting.start()
    try:
        api, _ = callers(slow.url)
        seen = set()
        while starting.is_alive():
            answer = api.get("/v1/jobs/known")
            seen.add((answer.status_code, "loading" in answer.text))
        starting.join()
        assert (503, True) in seen
        assert {status for status, _ in seen} <= {200, 503}
        assert api.get("/v1/jobs/known").status_code == 200
    finally:
        starting.join()
        slow.stop()


def test_our_own_mistakes_are_not_blamed_on_the_server(store: TimedStore) -> None:
    store.client.set("rq:queues", "no set")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as caught:
        submit(store)
    store.client.delete("rq:queues")  # others have this server after us
    assert not isinstance(caught.value, RedisUnavailable)
