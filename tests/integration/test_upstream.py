"""A worker whose jobs another promptq runs: texts, streams, cancels, and both sides' ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from promptq.contract.job import Job, Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.progress import Place, follow
from tests.fakes import TimedStore, submit
from tests.integration.apis import Api, running
from tests.integration.streams import blocks, listen
from tests.integration.upstreams import NAME, Upstream, models_file, store_of, upstream, worker_before
from tests.processes import wait_until

WORDS = " ".join(f"wörd{number}" for number in range(30))
LONG = " ".join(["word"] * 400)
MAX_RSS = 80 * 2**20


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("far"), pace=40.0) as up:
        yield up


@pytest.fixture
def models(tmp_path: Path, far: Upstream) -> Path:
    return models_file(tmp_path, far.url)


@pytest.fixture
def near(client: redis.Redis, models: Path) -> TimedStore:
    return store_of(client, models_file=str(models))


@pytest.fixture
def api(server: EmbeddedServer, near: TimedStore, tmp_path: Path, models: Path) -> Iterator[Api]:
    with running(server, tmp_path, 1, models_file=models, engine="upstream") as api:
        yield api


def put(store: TimedStore, prompt: str = WORDS, **fields: Any) -> str:
    return submit(store, prompt, now=time.time(), cache=False, **fields).job.id


def ended(store: TimedStore, *ids: str, seconds: float = 60) -> list[Job]:
    wait_until(lambda: all(job and job.status.is_terminal for job in store.get_many(ids)), seconds, "the ends")
    return [store.get(job_id) for job_id in ids]


def running_there(far: Upstream) -> list[Job]:
    ids = [key.decode().removeprefix("rq:job:") for key in far.store.client.scan_iter("rq:job:*", count=1000)]
    return [job for job in far.store.get_many(ids) if job and not job.status.is_terminal]


def test_texts_and_usage_are_those_of_the_server(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    with worker_before(server, models):
        ids = [put(near, f"{WORDS} {number}", max_tokens=64) for number in range(40)]
        results = [job.result for job in ended(near, *ids)]
    assert [result.text for result in results] == [f"{WORDS} {number}" for number in range(40)]
    counts = {(result.prompt_tokens, result.completion_tokens, result.finish_reason) for result in results}
    assert counts == {(31, 31, "stop")}
    assert {result.model for result in results} == {NAME}


def test_a_prompt_is_cut_and_stopped_by_the_server(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    with worker_before(server, models):
        cut, stopped = ended(near, put(near, max_tokens=5), put(near, stop=["wörd7"], max_tokens=64))
    assert (cut.result.text, cut.result.finish_reason) == (WORDS.partition(" wörd5")[0], "length")
    assert (stopped.result.text, stopped.result.finish_reason) == (WORDS.partition("wörd7")[0], "stop")


def test_the_last_of_sixteen_stop_strings_stops_too(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    stops = [*(f"never {number}" for number in range(15)), "d11 wö"]
    with worker_before(server, models):
        (job,) = ended(near, put(near, stop=stops, max_tokens=64))
    assert (job.result.text, job.result.finish_reason) == (WORDS.partition("d11 wö")[0], "stop")


def test_a_chat_is_sent_as_one(server: EmbeddedServer, near: TimedStore, api: Api, models: Path) -> None:
    asked = {"model": NAME, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 64}
    with worker_before(server, models):
        answer = api.call("POST", "/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == WORDS
    assert (answer["usage"]["completion_tokens"], answer["model"]) == (30, NAME)


def test_what_is_read_as_it_comes_comes_as_it_does(
    server: EmbeddedServer, near: TimedStore, api: Api, models: Path
) -> None:
    with worker_before(server, models):
        stream = listen(api, put(near, max_tokens=64))
    assert stream.text == WORDS
    assert len([name for name, data in stream.events if data.get("text")]) > 5, "in pieces"


def test_a_cancel_reaches_the_server(server: EmbeddedServer, near: TimedStore, far: Upstream, models: Path) -> None:
    with worker_before(server, models):
        job_id = put(near, LONG, max_tokens=400)
        (there,) = wait_until(lambda: [job for job in running_there(far) if job.status is Status.RUNNING])
        wait_until(lambda: kept(near, job_id) > 0, what="some text")
        near.cancel(job_id)
        (job,) = ended(near, job_id)
        assert job.status is Status.CANCELLED
        assert LONG.startswith(job.result.text)
        assert ended(far.store, there.id)[0].status is Status.CANCELLED


def test_a_deadline_ends_both_jobs(server: EmbeddedServer, near: TimedStore, far: Upstream, models: Path) -> None:
    with worker_before(server, models):
        (job,) = ended(near, put(near, LONG, max_tokens=400, timeout_seconds=0.5))
        assert (job.status, job.error.type) == (Status.FAILED, "timeout")
        wait_until(lambda: not running_there(far), what="the job there")


def test_what_the_server_refuses_fails_with_its_message(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    """An echo engine has no log probabilities, and the server says so."""
    with worker_before(server, models):
        refused, sane = ended(near, put(near, logprobs=True), put(near, max_tokens=64))
        assert (refused.status, refused.error.type) == (Status.FAILED, "invalid_request")
        assert "cannot do logprobs" in refused.error.message
        assert sane.result.text == WORDS
        assert trouble(near) == ""


@pytest.mark.parametrize("wrong", ["model", "port"])
def test_a_wrong_entry_burns_no_job(
    server: EmbeddedServer, near: TimedStore, far: Upstream, tmp_path: Path, wrong: str
) -> None:
    url = "http://127.0.0.1:9" if wrong == "port" else far.url
    with worker_before(server, models_file(tmp_path, url, upstream_model="gone" if wrong == "model" else "echo")):
        ids = [put(near) for _ in range(5)]
        wait_until(lambda: trouble(near), what="trouble")
        assert ("HTTP 404" if wrong == "model" else "All connection attempts failed") in trouble(near)
        wait_until(lambda: put_back(near) >= 2, what="a second try")
        assert {(job.status.is_terminal, job.attempts <= 1) for job in near.get_many(ids)} == {(False, True)}
    with worker_before(server, models_file(tmp_path, far.url), "right"):
        assert {(job.result.text, job.attempts) for job in ended(near, *ids)} == {(WORDS, 1)}


def test_a_worker_that_is_killed_loses_the_text_and_says_so(
    server: EmbeddedServer, near: TimedStore, far: Upstream, api: Api, models: Path
) -> None:
    with worker_before(server, models, "doomed") as doomed:
        job_id = put(near, max_tokens=64)
        response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
        came = blocks(response)
        wait_until(lambda: '"text"' in next(came), what="some text")
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        near.take_back("doomed")
    with worker_before(server, models, "next"), response:
        rest = list(came)
        (job,) = ended(near, job_id)
    assert any(block.startswith("event: reset") or "\nevent: reset" in block for block in rest), rest
    assert (job.result.text, job.attempts, job.result.resumed_tokens) == (WORDS, 2, 0)
    wait_until(lambda: not running_there(far), what="the job that nobody reads any more")


def test_an_openai_stream_that_began_ends_when_the_text_is_lost(
    server: EmbeddedServer, near: TimedStore, api: Api, models: Path
) -> None:
    with worker_before(server, models, "doomed") as doomed:
        asked = {"model": NAME, "prompt": LONG, "max_tokens": 400, "stream": True}
        response = api.call("POST", "/v1/completions", json=asked, stream=True)
        came = blocks(response)
        wait_until(lambda: "word" in next(came), what="some text")
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        near.take_back("doomed")
    with worker_before(server, models, "next"), response:
        assert "started_over" in list(came)[-1]


def test_after_sigterm_rows_end_within_the_drain_time(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    with worker_before(server, models, drain_seconds=20) as process:
        job_id = put(near, max_tokens=64)
        wait_until(lambda: near.get(job_id).status is Status.RUNNING)
        process.terminate()
        assert process.wait(30) == 0
    (job,) = ended(near, job_id)
    assert (job.result.text, job.attempts) == (WORDS, 1)


def test_what_outlasts_the_drain_time_is_put_back(
    server: EmbeddedServer, near: TimedStore, far: Upstream, models: Path
) -> None:
    with worker_before(server, models, drain_seconds=0.2) as process:
        job_id = put(near, LONG, max_tokens=400)
        wait_until(lambda: kept(near, job_id) > 0, what="some text")
        process.terminate()
        assert process.wait(30) == 0
        assert (near.get(job_id).status, near.get(job_id).attempts) == (Status.QUEUED, 0)
        wait_until(lambda: not running_there(far), what="the job there")


def test_the_process_stays_small(server: EmbeddedServer, near: TimedStore, models: Path) -> None:
    with worker_before(server, models) as process:
        ended(near, *(put(near, max_tokens=64) for _ in range(100)))
        memory = psutil.Process(process.pid).memory_info().rss
        print(f"{memory / 2**20:.1f} MiB")
        assert memory < MAX_RSS
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "torch" not in maps


def trouble(store: TimedStore) -> str:
    workers = Observer(store.client, store.settings).workers()
    return workers[0].trouble if workers else ""


def put_back(store: TimedStore) -> int:
    return int(store.client.hget(store.keys.totals(), "requeued:upstream") or 0)


def kept(store: TimedStore, job_id: str) -> int:
    """Characters of a running job's text that can be read."""
    (found,) = follow(store, [Place(job_id)], watch=True)
    return sum(len(text) for _, text in found.entries)
