"""Clients that wait and leave, that send slowly or do not read: they hold no place for long, and never `/livez`'s."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from api.api_keys import digest
from promptq.contract.settings import ApiSettings
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, success
from tests.integration.apis import Api, running
from tests.processes import wait_until

PLACES = 50
CALLS = {
    "read": ("GET", "/v1/jobs/{id}?wait=60", {}, b""),
    "submit": ("POST", "/v1/jobs", {"Prefer": "wait=60"}, b'{"prompt": "a", "cache": false}'),
    "put": ("PUT", "/v1/jobs/mine", {"Prefer": "wait=60"}, b'{"prompt": "a", "cache": false}'),
    "generate": ("POST", "/generate", {}, b'{"prompt": "a"}'),
}


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    data_dir = tmp_path_factory.mktemp("api")
    with running(server, data_dir, 1, api_connections=PLACES, client_timeout_seconds=4) as api:
        yield api


@pytest.fixture
def job(api: Api, client: redis.Redis) -> str:
    wait_until(lambda: api.open_requests() == 0, 20, "the last test's requests to end")
    return str(api.submit().json()["id"])


@pytest.fixture
def send() -> Iterator[Callable[..., socket.socket]]:
    """`Api.send`, whose connections are closed when the test is over."""
    with ExitStack() as stack:
        yield lambda api, *request, **headers: stack.enter_context(api.send(*request, **headers))


def end(client: redis.Redis) -> None:
    store = TimedStore(client, ApiSettings(_env_file=None, engine="echo"))
    assert all(store.finish("w", [success(claim) for claim in store.claim("w", 9)]))


def answer(connection: socket.socket) -> tuple[int, Any]:
    """The status and the body of the next response."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = dict(line.decode().lower().strip().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
        return status, json.loads(stream.read(int(headers["content-length"])))


def expect_life(api: Api) -> None:
    for path in ("/livez", "/metrics"):
        began = time.monotonic()
        assert api.call("GET", path).ok
        assert time.monotonic() - began < 5, path


def test_dropped_long_polls_give_their_places_back(api: Api, send: Callable, job: str) -> None:
    polls = [send(api, "GET", f"/v1/jobs/{job}?wait=60") for _ in range(PLACES + 10)]
    wait_until(lambda: api.open_requests() >= PLACES, 20, "the polls")
    for poll in polls:
        poll.close()
    expect_life(api)
    wait_until(lambda: api.open_requests() == 0, 20, "the places")
    assert api.submit().status_code == 202


def test_long_polls_that_stay_leave_room_for_life_and_the_rest_is_told_so(
    api: Api, send: Callable, job: str, client: redis.Redis
) -> None:
    polls = [send(api, "GET", f"/v1/jobs/{job}?wait=60") for _ in range(PLACES)]
    wait_until(lambda: api.open_requests() >= PLACES, 20, "the polls")
    expect_life(api)
    refused = api.submit()
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    end(client)
    assert {answer(poll)[1]["status"] for poll in polls} == {"succeeded"}
    assert api.submit().status_code == 202


@pytest.mark.parametrize("name", CALLS)
def test_every_call_that_waits_notices(api: Api, send: Callable, job: str, name: str) -> None:
    method, path, headers, body = CALLS[name]
    connection = send(api, method, path.format(id=job), body, **headers)
    wait_until(lambda: api.open_requests() == 1, 20, "the wait")
    connection.close()
    wait_until(lambda: api.open_requests() == 0, 20, "its end")


def test_a_client_that_has_only_closed_its_sending_side_is_answered_at_once(api: Api, send: Callable, job: str) -> None:
    with send(api, "GET", f"/v1/jobs/{job}?wait=60") as connection:
        connection.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        status, shown = answer(connection)
        assert (status, shown["status"]) == (200, "queued")
        assert time.monotonic() - began < 20


def test_bytes_of_the_next_request_are_no_sign_of_leaving(
    api: Api, send: Callable, job: str, client: redis.Redis
) -> None:
    with send(api, "GET", f"/v1/jobs/{job}?wait=60") as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.settimeout(5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(60)
        end(client)
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            received += connection.recv(65536)
    assert b'"succeeded"' in received


def test_bodies_that_trickle_in_are_given_up_and_leave_room_for_life(api: Api, send: Callable, job: str) -> None:
    slow = [send(api, "POST", "/v1/jobs", b"{", **{"Content-Length": 1000}) for _ in range(PLACES + 10)]
    wait_until(lambda: api.open_requests() >= PLACES, 20, "the requests")
    answered = 0
    deadline = time.monotonic() + 30
    expect_life(api)
    while answered < PLACES and time.monotonic() < deadline:
        answered = sum(not _trickles(connection) for connection in slow)
        time.sleep(0.5)
    assert answered >= PLACES
    statuses = [answer(connection)[0] for connection in slow]
    assert statuses.count(408) >= PLACES
    assert set(statuses) <= {408, 503}


def _trickles(connection: socket.socket) -> bool:
    """Send one more byte; whether no response has come yet."""
    try:
        connection.send(b" ")
        connection.setblocking(False)
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.setblocking(True)


def test_a_client_that_does_not_read_is_given_up(api: Api, send: Callable, job: str, client: redis.Redis) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", api.port))
    with connection:
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * 2000)
        wait_until(lambda: api.open_requests() == 1, 20, "the response that is not read")
        wait_until(lambda: api.open_requests() == 0, 30, "its end")


def test_dropped_long_polls_of_a_key_count_no_longer(
    server: EmbeddedServer, tmp_path: Path, client: redis.Redis, send: Callable
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann {digest('key')}\n", encoding="utf-8")
    bearer = {"Authorization": "Bearer key"}
    with running(server, tmp_path / "api", 1, api_keys_file=file, key_requests_per_second=0) as api:
        job = api.submit(**bearer).json()["id"]
        polls = [send(api, "GET", f"/v1/jobs/{job}?wait=60", **bearer) for _ in range(210)]
        wait_until(lambda: api.open_requests() >= 200, 20, "the polls")
        assert api.submit(**bearer).json()["error"]["type"] == "too_many_open_requests"
        for poll in polls:
            poll.close()
        wait_until(lambda: api.submit(**bearer).status_code == 202, 20, "the key's count")
        wait_until(lambda: api.open_requests() == 0, 20, "the places")
