"""The API under gunicorn, against a real server. The test plays the GPU worker."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from promptq.contract.settings import ApiSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import TimedStore, success
from tests.integration.apis import Api, running, waiting
from tests.processes import wait_until

POLLERS = 200


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(POLLERS) as pool:
        yield pool


@pytest.fixture
def queue(client: redis.Redis) -> TimedStore:
    return TimedStore(client, ApiSettings(_env_file=None, engine="echo"))


def finish_all(queue: TimedStore) -> float:
    """Claim and end what waits; the moment at which that was done."""
    claims = queue.claim("w1", 1000, time.time())
    assert all(queue.finish("w1", [success(claim) for claim in claims], time.time()))
    return time.monotonic()


def timed(api: Api, method: str, path: str, **options: Any) -> tuple[int, float]:
    """The status, and the moment of the answer."""
    status = api.call(method, path, **options).status_code
    return status, time.monotonic()


def lag(answers: list[Future[tuple[int, float]]], since: float) -> tuple[set[int], float]:
    """All statuses, and how long after `since` the last answer came."""
    results = [answer.result() for answer in answers]
    return {status for status, _ in results}, max(moment for _, moment in results) - since


def test_prefer_wait_is_answered_at_once_when_the_job_ends(
    api: Api, queue: TimedStore, pool: ThreadPoolExecutor
) -> None:
    answer = pool.submit(timed, api, "POST", "/v1/jobs", json={"prompt": "x"}, headers={"Prefer": "wait=30"})
    wait_until(lambda: queue.client.llen("rq:queue:default"), 10)
    time.sleep(0.2)
    statuses, seconds = lag([answer], finish_all(queue))
    print(f"answered {seconds * 1000:.1f} ms after the finish")
    assert statuses == {200}
    assert seconds < 1


def test_generate_is_answered_by_a_worker(api: Api, queue: TimedStore, pool: ThreadPoolExecutor) -> None:
    answer = pool.submit(api.call, "POST", "/generate", json={"prompt": "x"})
    wait_until(lambda: queue.client.llen("rq:queue:default"), 10)
    finish_all(queue)
    assert answer.result().json()["output"] == "text"


def test_two_hundred_wait_at_once_and_the_rest_of_the_api_stays_quick(
    api: Api, queue: TimedStore, client: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    urls = [api.submit(f"prompt {i}").json()["urls"]["self"] for i in range(POLLERS)]
    answers = [pool.submit(timed, api, "GET", f"{url}?wait=50") for url in urls]
    wait_until(lambda: waiting(api, POLLERS), 30, "the pollers")
    probes = []
    for _ in range(20):
        began = time.monotonic()
        assert api.call("GET", "/livez").ok
        probes.append(time.monotonic() - began)
    connections = client.info("clients")["connected_clients"]
    statuses, seconds = lag(answers, finish_all(queue))
    print(
        f"livez at most {max(probes) * 1000:.1f} ms, {connections} connections, all told {seconds * 1000:.0f} ms later"
    )
    assert statuses == {200}
    assert max(probes) < 1
    assert connections < 100
    assert seconds < 5


def test_the_metrics_add_up_over_the_processes(api: Api, client: redis.Redis, pool: ThreadPoolExecutor) -> None:
    def samples() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in api.call("GET", "/metrics").text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}

    before = samples()
    sent = 120
    assert {answer.status_code for answer in pool.map(api.submit, map(str, range(sent)))} == {202}
    after = samples()
    for name in (
        'promptq_http_requests_total{method="POST",route="/v1/jobs",status="202"}',
        'promptq_http_request_duration_seconds_count{method="POST",route="/v1/jobs"}',
        'promptq_jobs_submitted_total{model="echo",queue="default"}',
        'promptq_cache_requests_total{result="bypass"}',
    ):
        assert after[name] - before.get(name, 0) == sent
    # A request is counted out after its response is sent.
    wait_until(lambda: samples()["promptq_http_requests_in_progress"] == 1, 10, "the other requests' ends")
    assert len([name for name in api.metric_files() if name.startswith("counter")]) == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"400"),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"GET /v1/jobs/" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
    ids=["chunk", "length", "long", "nonsense"],
)
def test_broken_http_is_a_4xx(api: Api, request_bytes: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).split()[1] == status


def test_a_prompt_of_ten_megabytes_and_a_body_over_the_limit(api: Api) -> None:
    with requests.Session() as session:
        url = f"http://127.0.0.1:{api.port}/v1/jobs"
        long = session.post(url, json={"prompt": "x" * 10_000_000}, timeout=60)
        huge = session.post(url, data=b" " * 20_000_000, timeout=60)
        chunked = session.post(url, data=(b" " * 1_000_000 for _ in range(20)), timeout=60)
        after = session.post(url, json={"prompt": "x"}, timeout=60)
    assert [a.status_code for a in (long, huge, chunked, after)] == [422, 413, 413, 202]
    assert (long.json()["error"]["param"], huge.json()["error"]["param"]) == ("prompt", "body")


def test_redis_away_is_503_at_once_and_comes_back_without_a_restart(
    own_server: EmbeddedServer, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    with running(own_server, tmp_path / "api") as api:
        url = api.submit().json()["urls"]["self"]
        waits = [pool.submit(timed, api, "GET", f"{url}?wait=50") for _ in range(20)]
        wait_until(lambda: waiting(api, 20), 30, "the pollers")
        own_server.stop(kill=True)
        statuses, seconds = lag(waits, time.monotonic())
        print(f"20 waiters told {seconds * 1000:.0f} ms after the server was killed")
        assert statuses == {503}
        assert seconds < 2
        _expect_503_within_two_seconds(api, url)
        own_server.start()
        wait_until(lambda: api.call("GET", url).status_code == 200, 5, "the API to recover")
        wait = pool.submit(timed, api, "GET", f"{url}?wait=50")
        wait_until(lambda: waiting(api, 1), 10, "the poller")
        with connect(own_server.url) as client:
            statuses, seconds = lag([wait], finish_all(TimedStore(client, ApiSettings(_env_file=None))))
        # Either the notification came, or the subscription's return, a second later at most, made the wait read again.
        assert statuses == {200}
        assert seconds < 3


def test_redis_that_hangs_is_503_within_two_seconds(own_server: EmbeddedServer, tmp_path: Path) -> None:
    with running(own_server, tmp_path / "api") as api:
        url = api.submit().json()["urls"]["self"]
        assert own_server.process
        own_server.process.send_signal(signal.SIGSTOP)
        try:
            _expect_503_within_two_seconds(api, url)
        finally:
            own_server.process.send_signal(signal.SIGCONT)
        assert api.call("GET", url).status_code == 200


def test_sigterm_answers_the_long_polls_and_ends_cleanly(
    server: EmbeddedServer, tmp_path: Path, client: redis.Redis, pool: ThreadPoolExecutor
) -> None:
    with running(server, tmp_path) as api:
        url = api.submit().json()["urls"]["self"]
        waits = [pool.submit(timed, api, "GET", f"{url}?wait=50") for _ in range(50)]
        wait_until(lambda: waiting(api, 50), 30, "the pollers")
        asked = time.monotonic()
        api.process.terminate()
        statuses, seconds = lag(waits, asked)
        assert api.process.wait(20) == 0
        print(f"50 waiters told after {seconds * 1000:.0f} ms, ended after {time.monotonic() - asked:.1f} s")
        assert statuses == {200}
        assert seconds < 5
        assert list(tmp_path.glob("metrics/api-*")) == []


def test_a_killed_process_leaves_the_gauges_and_keeps_its_counts(
    server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    with running(server, tmp_path) as api:
        for i in range(20):
            api.submit(str(i))
        victim = next(int(name[8:-3]) for name in api.metric_files() if name.startswith("counter_"))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: f"gauge_livesum_{victim}.db" not in api.metric_files(), 10)
        wait_until(api.lives, 20)
        text = api.call("GET", "/metrics").text
        assert 'promptq_http_requests_total{method="POST",route="/v1/jobs",status="202"} 20.0' in text
        assert "promptq_http_requests_in_progress 1.0" in text


def _expect_503_within_two_seconds(api: Api, url: str) -> None:
    for method, path, options in (
        ("GET", url, {}),
        ("GET", f"{url}?wait=50", {}),
        ("POST", "/v1/jobs", {"json": {"prompt": "x"}}),
        ("POST", "/generate", {"json": {"prompt": "x"}}),
        ("GET", "/v1/queues", {}),
        ("GET", "/readyz", {}),
    ):
        began = time.monotonic()
        answer = api.call(method, path, **options)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), path
        assert time.monotonic() - began < 2, path
    assert api.call("GET", "/livez").ok
