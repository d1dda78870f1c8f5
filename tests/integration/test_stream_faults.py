"""Streams whose API, server or worker goes away meanwhile: nothing is missed, and nothing heard twice."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import TimedStore, keys
from tests.integration.apis import Api, running
from tests.integration.streams import WORDS, Stream, blocks, listen, put
from tests.processes import wait_until, worker


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1) as api:
        yield api


def begun(came: Iterator[str], characters: int = 40) -> Stream:
    """A stream of which so much was read."""
    stream = Stream()
    while len(stream.text) < characters:
        stream.add(next(came))
    return stream


def test_when_the_api_ends_its_streams_end_and_go_on_elsewhere(
    server: EmbeddedServer, store: TimedStore, tmp_path: Path, api: Api
) -> None:
    job_id = put(store)
    with running(server, tmp_path, 1) as other, worker(server, echo_tokens_per_second=15):
        response = other.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
        stream, came = Stream(), blocks(response)
        while len(stream.text) < 40:
            stream.add(next(came))
        other.process.send_signal(signal.SIGTERM)
        stream.add_all(came)
        assert "this process ends" in stream.comments[-1]
        assert other.process.wait(10) == 0
        assert stream.text + listen(api, job_id, stream.ids[-1]).text == WORDS


def test_when_a_process_of_the_api_is_killed_its_streams_go_on_at_another(
    server: EmbeddedServer, store: TimedStore, tmp_path: Path, api: Api
) -> None:
    job_id = put(store)
    with running(server, tmp_path, 1) as other, worker(server, echo_tokens_per_second=10):
        came = blocks(other.call("GET", f"/v1/jobs/{job_id}/events", stream=True))
        stream = begun(came)
        for process in psutil.Process(other.process.pid).children():
            process.kill()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            stream.add_all(came)
        assert stream.text + listen(api, job_id, stream.ids[-1]).text == WORDS


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_streams_go_on_when_the_server_was_restarted(
    own_server: EmbeddedServer, settings: WorkerSettings, tmp_path: Path, how: str
) -> None:
    with connect(own_server.url) as client, running(own_server, tmp_path / "api", 1) as api:
        store = TimedStore(client, settings)
        job_id = put(store)
        with worker(own_server, echo_tokens_per_second=8):
            came = blocks(api.call("GET", f"/v1/jobs/{job_id}/events", stream=True))
            stream = begun(came)
            own_server.stop(kill=how == "killed")
            time.sleep(0.5)
            own_server.start()
            stream.add_all(came)
        assert stream.text == WORDS
        assert "reset" not in stream.names
        assert store.get(job_id).status is Status.SUCCEEDED


def test_a_server_that_lost_its_last_second_leaves_neither_gap_nor_repeat(
    server: EmbeddedServer, store: TimedStore, api: Api
) -> None:
    """As after a failover: the worker goes with the machine, and the next one has less to go on with than was read."""
    job_id = put(store)
    with worker(server, "first", echo_tokens_per_second=8, lease_seconds=60) as process:
        came = blocks(api.call("GET", f"/v1/jobs/{job_id}/events", stream=True))
        stream = begun(came, 80)
        process.kill()
        process.wait(10)
    entries = store.client.xrange(keys.progress(job_id))
    store.client.delete(keys.progress(job_id))
    for entry, fields in entries[:-4]:
        store.client.xadd(keys.progress(job_id), fields, id=entry)
    store.take_back("first", time.time())
    with worker(server, "second", echo_tokens_per_second=150):
        stream.add_all(came)
    assert stream.text == WORDS
    assert "reset" not in stream.names


def test_a_worker_keeps_nothing_behind_what_the_server_lost_and_readers_get_the_whole_text_all_the_same(
    server: EmbeddedServer, store: TimedStore, api: Api
) -> None:
    job_id = put(store)
    with worker(server, echo_tokens_per_second=15):
        came = blocks(api.call("GET", f"/v1/jobs/{job_id}/events", stream=True))
        stream = begun(came, 60)
        store.client.delete(keys.progress(job_id))
        stream.add_all(came)
    assert stream.text == WORDS
    assert store.client.exists(keys.progress(job_id)) == 0


def test_the_open_streams_of_a_key_are_limited(server: EmbeddedServer, store: TimedStore, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("".join(f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("ours", "theirs")))
    with running(server, tmp_path / "api", 1, api_keys_file=file, key_open_requests=2) as api:
        ours = {"Authorization": "Bearer ours"}

        def open_stream(key: dict[str, str]) -> requests.Response:
            body = {"prompt": WORDS, "cache": False}
            headers = {**key, "Accept": "text/event-stream"}
            return api.call("POST", "/v1/jobs", json=body, headers=headers, stream=True)

        streams = [open_stream(ours) for _ in range(2)]
        assert [stream.status_code for stream in streams] == [200, 200]
        refused = open_stream(ours)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "too_many_open_requests")
        assert open_stream({"Authorization": "Bearer theirs"}).status_code == 200
        streams[0].close()
        wait_until(lambda: open_stream(ours).status_code == 200, 10, "the place of a stream that was closed")
