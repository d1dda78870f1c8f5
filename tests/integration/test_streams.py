"""Streams through real sockets: an API under gunicorn, workers of the echo engine, clients that leave and return."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
import redis

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.streams import WORDS, Stream, blocks, listen, put
from tests.processes import wait_until, worker


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1, idempotency_ttl_seconds=60) as api:
        yield api


def test_a_client_gets_the_text_as_it_comes_and_the_job_at_the_end(
    api: Api, server: EmbeddedServer, store: TimedStore
) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=15):
        stream = listen(api, job_id)
    assert stream.names[0] == "status"
    assert stream.names[-1] == "end"
    assert stream.names.count("delta") > 10, "not all at once"
    assert [data["status"] for name, data in stream.events if name == "status"][-1] == "succeeded"
    assert stream.text == WORDS == stream.events[-1][1]["job"]["output"]["text"]
    assert stream.ids[-1] == str(len(WORDS))


def test_a_stream_goes_on_at_any_character_after_the_end_too(
    api: Api, server: EmbeddedServer, store: TimedStore
) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=30):
        first = listen(api, job_id, until=40)
        rest = listen(api, job_id, **{"Last-Event-ID": first.ids[-1]})
        assert first.text + rest.text == WORDS
    for position in range(len(WORDS) + 1):
        assert listen(api, job_id, str(position)).text == WORDS[position:]
    assert listen(api, job_id, str(len(WORDS) + 5)).text == ""


def test_a_killed_worker_leaves_neither_gap_nor_repeat(api: Api, server: EmbeddedServer, store: TimedStore) -> None:
    job_id = put(store)
    with worker(server, "first", echo_tokens_per_second=8, lease_seconds=60) as process:
        first = listen(api, job_id, until=60)
        process.kill()
        process.wait(10)
    store.take_back("first", time.time())
    with worker(server, "second", echo_tokens_per_second=20):
        rest = listen(api, job_id, first.ids[-1])
    assert first.text + rest.text == WORDS
    assert "reset" not in rest.names
    result = store.get(job_id).result
    assert result is not None
    assert (result.moves, result.resumed_tokens > 0) == (1, True)


def test_a_stream_that_stays_open_sees_its_job_change_workers(
    api: Api, server: EmbeddedServer, store: TimedStore
) -> None:
    job_id = put(store)
    response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
    stream, came = Stream(), blocks(response)
    for number in range(3):
        with worker(server, f"w{number}", echo_tokens_per_second=10) as process:
            while len(stream.text) < 60 * (number + 1):
                stream.add(next(came))
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    with worker(server, "last", echo_tokens_per_second=100):
        stream.add_all(came)
    assert stream.text == WORDS
    assert "reset" not in stream.names
    assert stream.events[-1][1]["job"]["timings"]["moves"] == 3


def test_one_that_joined_gets_the_text_of_its_leader(api: Api, server: EmbeddedServer, store: TimedStore) -> None:
    leader, joined = put(store, cache=True, max_tokens=29), put(store, cache=True, max_tokens=29)
    with worker(server, echo_tokens_per_second=15):
        stream = listen(api, joined)
    assert stream.names.count("delta") > 5
    assert stream.text == " ".join(WORDS.split()[:29])
    assert (stream.events[-1][1]["job"]["id"], stream.events[-1][1]["job"]["cache"]) == (joined, "join")
    assert store.get(leader).status is Status.SUCCEEDED


def test_a_cancelled_job_ends_its_streams(api: Api, server: EmbeddedServer, store: TimedStore) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=10):
        response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
        stream, came = Stream(), blocks(response)
        while not stream.text:
            stream.add(next(came))
        api.call("POST", f"/v1/jobs/{job_id}/cancel")
        stream.add_all(came)
    assert stream.events[-1][1]["job"]["status"] == "cancelled"
    assert stream.events[-1][1]["job"]["output"]["text"] == stream.text


def test_a_submit_may_answer_with_the_stream(api: Api, server: EmbeddedServer, client: redis.Redis) -> None:
    with worker(server, echo_tokens_per_second=50):
        body = {"prompt": WORDS, "cache": False}
        response = api.call("POST", "/v1/jobs", json=body, headers={"Accept": "text/event-stream"}, stream=True)
        stream = Stream()
        stream.add_all(blocks(response))
    assert (response.status_code, stream.text) == (200, WORDS)
    assert response.headers["Location"].endswith(stream.events[0][1]["id"])


def test_redis_may_be_away_for_a_moment(api: Api, server: EmbeddedServer, store: TimedStore) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=15):
        response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
        stream, came = Stream(), blocks(response)
        while len(stream.text) < 40:
            stream.add(next(came))
        store.client.client_kill_filter(_type="pubsub")
        stream.add_all(came)
    assert stream.text == WORDS


@pytest.mark.parametrize(
    ("path", "headers", "status", "param"),
    [
        ("?after=x", {}, 422, "after"), ("?after=-1", {}, 422, "after"), ("?before=1", {}, 422, "before"),
        ("", {"Last-Event-ID": "end"}, 422, "Last-Event-ID"),
    ],
)  # fmt: skip
def test_a_bad_position_is_refused_by_name(
    api: Api, store: TimedStore, path: str, headers: dict[str, str], status: int, param: str
) -> None:
    answer = api.call("GET", f"/v1/jobs/{put(store)}/events{path}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_of_an_unknown_job_there_is_no_stream(api: Api) -> None:
    assert api.call("GET", "/v1/jobs/nobody/events").status_code == 404


def test_a_client_that_leaves_holds_no_place(api: Api, store: TimedStore) -> None:
    job_id = put(store)
    responses = [api.call("GET", f"/v1/jobs/{job_id}/events", stream=True) for _ in range(20)]
    wait_until(lambda: api.open_requests() >= 20, 10)
    for response in responses:
        response.close()
    wait_until(lambda: api.open_requests() == 0, 10, "their places")
