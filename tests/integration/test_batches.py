"""Files and batches with the real openai SDK, real processes and a real server."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api
from tests.integration.batches import create, dispatcher, ended, entries, line, write
from tests.integration.openai_clients import api, fast, jobs, sdk
from tests.processes import wait_until, worker

__all__ = ["api", "fast", "sdk"]


@pytest.fixture
def running(server: EmbeddedServer, api: Api, fast: None) -> Iterator[None]:
    with dispatcher(server, api.data_dir):
        yield


@pytest.mark.usefixtures("running")
def test_upload_create_poll_and_read(sdk: openai.OpenAI, store: TimedStore, api: Api, tmp_path: Path) -> None:
    lines = [line(f"id-{number}", f"word{number} and more") for number in range(20)]
    made = create(sdk, write(tmp_path, lines), metadata={"who": "me"})
    assert (made.status, made.metadata, made.output_file_id) == ("validating", {"who": "me"}, None)
    batch = ended(sdk, made.id)
    assert batch.status == "completed", batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    found: dict[str, Any] = {entry["custom_id"]: entry for entry in entries(sdk, batch.output_file_id)}
    assert set(found) == {one["custom_id"] for one in lines}
    body = found["id-7"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "word7 and more"
    assert batch.error_file_id is None
    assert jobs(store) == [], "what is written takes up no memory of the server any more"
    assert not list((api.data_dir / "files/batches").iterdir()), "the parts are one file now"
    assert next(one.id for one in sdk.batches.list(limit=1)) == made.id
    outputs = sdk.files.list(purpose="batch_output").data
    assert [one.id for one in outputs] == [batch.output_file_id]
    assert sdk.files.delete(batch.output_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(batch.output_file_id)


@pytest.mark.usefixtures("running")
def test_the_answers_are_those_of_the_calls_themselves(sdk: openai.OpenAI, tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, Any], Any]] = [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b c"}], "n": 2}, sdk.chat.completions),
        ("/v1/completions", {"prompt": ["a b c", "d e"], "max_tokens": 2}, sdk.completions),
        ("/v1/responses", {"input": "a b c", "metadata": {"k": "v"}}, sdk.responses),
    ]
    for endpoint, body, resource in calls:
        path = write(tmp_path, [line("x", url=endpoint, model="echo", **body)])
        batch = ended(sdk, create(sdk, path, endpoint=endpoint).id)
        [entry] = entries(sdk, batch.output_file_id)
        expected = json.loads(resource.create(model="echo", **body).model_dump_json())
        assert _stripped(entry["response"]["body"]) == _stripped(expected), endpoint


def _stripped(value: Any) -> Any:
    """Without what differs from call to call, and what the SDK leaves out or adds."""
    if isinstance(value, dict):
        gone = ("id", "created", "created_at", "completed_at")
        return {name: _stripped(one) for name, one in value.items() if name not in gone and one is not None}
    return [_stripped(one) for one in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("running")
def test_lines_that_cannot_be_run_go_to_the_error_file(sdk: openai.OpenAI, tmp_path: Path) -> None:
    bad = line("bad", model="echo", messages=[], max_tokens=1)
    lines = [line("good"), bad, line("other", model="nobody", messages=[{"role": "user", "content": "x"}])]
    batch = ended(sdk, create(sdk, write(tmp_path, lines)).id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 2)
    found = {entry["custom_id"]: entry["response"] for entry in entries(sdk, batch.error_file_id)}
    assert {name: answer["status_code"] for name, answer in found.items()} == {"bad": 400, "other": 404}
    assert found["bad"]["body"]["error"]["param"] == "messages"
    assert found["other"]["body"]["error"]["code"] == "model_not_found"


@pytest.mark.usefixtures("running")
def test_a_file_that_is_wrong_fails_its_batch_with_the_numbers_of_the_lines(sdk: openai.OpenAI, tmp_path: Path) -> None:
    lines = [line("a"), "{", line("a"), line("b", url="/v1/completions"), line("c") | {"method": "GET"}]
    path = write(tmp_path, lines)
    with path.open("rb") as file:
        uploaded = sdk.files.create(file=file, purpose="batch")
    assert (uploaded.status, uploaded.status_details) == (
        "error", "line 2: This line is not parseable as valid JSON."
    )  # fmt: skip
    batch = ended(sdk, create(sdk, path).id)
    assert batch.status == "failed"
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "mismatched_url"), (5, "invalid_method"),
    ]  # fmt: skip


def test_a_dispatcher_that_is_killed_loses_no_line_and_writes_none_twice(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    lines = [line(f"id-{number}", f"word{number} b c d") for number in range(400)]
    with worker(server, slots=16, echo_tokens_per_second=100):
        with dispatcher(server, api.data_dir, lease_seconds=2) as first:
            made = create(sdk, write(tmp_path, lines))
            wait_until(lambda: sdk.batches.retrieve(made.id).request_counts.completed > 20, 30, "some lines")
            first.send_signal(signal.SIGKILL)
            first.wait()
        partial = sdk.files.with_raw_response.content(sdk.batches.retrieve(made.id).output_file_id)
        assert partial.headers["X-Incomplete"] == "true"
        assert 20 < len(partial.content.splitlines()) < 400
        with dispatcher(server, api.data_dir, lease_seconds=2), dispatcher(server, api.data_dir, lease_seconds=2):
            batch = ended(sdk, made.id)
    written = entries(sdk, batch.output_file_id) + entries(sdk, batch.error_file_id)
    assert Counter(entry["custom_id"] for entry in written) == Counter(f"id-{number}" for number in range(400))
    assert (batch.status, batch.request_counts.completed) == ("completed", 400)
    assert all(
        entry["response"]["body"]["choices"][0]["message"]["content"] == f"word{entry['custom_id'][3:]} b c d"
        for entry in written
    )


def test_a_cancelled_batch_keeps_what_ran_and_runs_the_rest_when_it_is_retried(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    with dispatcher(server, api.data_dir):
        with worker(server, slots=2, echo_tokens_per_second=20):
            made = create(sdk, write(tmp_path, [line(f"id-{number}") for number in range(100)]))
            wait_until(lambda: sdk.batches.retrieve(made.id).request_counts.completed, 30, "a line")
            assert sdk.batches.cancel(made.id).status == "cancelling"
            batch = ended(sdk, made.id)
        counts = batch.request_counts
        assert batch.status == "cancelled"
        assert 0 < counts.completed < 100 == counts.completed + counts.failed
        errors = entries(sdk, batch.error_file_id)
        assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}
        with pytest.raises(openai.ConflictError):
            sdk.batches.cancel(made.id)
        with worker(server, "w2", echo_tokens_per_second=0):
            one = errors[3]["custom_id"]
            assert _retry(api, made.id, custom_id=one).json()["status"] == "in_progress"
            batch = ended(sdk, made.id)
            assert batch.request_counts.failed == counts.failed - 1
            assert one in {entry["custom_id"] for entry in entries(sdk, batch.output_file_id)}
            assert _retry(api, made.id, custom_id=one).status_code == 400
            assert _retry(api, made.id).ok
            batch = ended(sdk, made.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 100, 0)
        found = Counter(entry["custom_id"] for entry in entries(sdk, batch.output_file_id))
        assert found == Counter(f"id-{number}" for number in range(100))
        assert _retry(api, made.id).status_code == 409


def _retry(api: Api, batch_id: str, **query: str) -> requests.Response:
    return api.call("POST", f"/v1/batches/{batch_id}/retry", params=query)


def test_what_has_not_run_when_the_window_ends_is_written_as_expired(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    with dispatcher(server, api.data_dir):
        made = create(sdk, write(tmp_path, [line("a"), line("b")]), window="1h")
        wait_until(lambda: store.client.llen(store.keys.queue("low")) == 2, 20, "the jobs")
        store.client.hset(store.keys.batch(made.id), "expires_at", store.now() - 1)
        batch = ended(sdk, made.id)
    assert (batch.status, batch.request_counts.failed) == ("expired", 2)
    errors = entries(sdk, batch.error_file_id)
    assert [entry["error"]["code"] for entry in errors] == ["batch_expired"] * 2
    assert store.client.llen(store.keys.queue("low")) == 0


@pytest.mark.usefixtures("running")
def test_results_that_redis_forgot_are_generated_again(
    sdk: openai.OpenAI, store: TimedStore, tmp_path: Path, server: EmbeddedServer
) -> None:
    store.client.set(store.keys.suspended(), "1")  # nothing is claimed yet
    made = create(sdk, write(tmp_path, [line("a", "x y"), line("b", "z")]))
    wait_until(lambda: store.client.llen(store.keys.queue("low")) == 2, 20, "the jobs")
    store.client.delete(store.keys.queue("low"), *(store.keys.job(one) for one in jobs(store)))
    store.client.delete(store.keys.suspended())
    batch = ended(sdk, made.id)
    assert batch.request_counts.completed == 2
    assert {entry["custom_id"] for entry in entries(sdk, batch.output_file_id)} == {"a", "b"}
