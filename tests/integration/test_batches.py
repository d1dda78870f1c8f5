"""Files and batches with the real openai SDK, real processes and a real server."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis

from promptq.cli import main
from promptq.client.run_batch import how_to_go_on
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import SETTINGS
from tests.integration.apis import Api
from tests.integration.batches import create, dispatcher, ended, entries, line, write
from tests.integration.openai_clients import api, sdk
from tests.processes import wait_until, worker

__all__ = ["api", "sdk"]


@pytest.fixture(scope="module", autouse=True)
def redis_client(server: EmbeddedServer, api: Api) -> Iterator[redis.Redis]:
    """Of the one service that all tests here share: emptied once."""
    with connect(server.url) as client:
        client.flushall()
        with worker(server, echo_tokens_per_second=0), dispatcher(server, api.data_dir, lease_seconds=2):
            yield client


def jobs(client: redis.Redis) -> list[str]:
    return [key.decode() for key in client.keys("rq:job:batch_*")]


def test_upload_create_poll_and_read(sdk: openai.OpenAI, redis_client: redis.Redis, api: Api, tmp_path: Path) -> None:
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
    assert jobs(redis_client) == [], "what is written takes up no memory of the server any more"
    assert not list((api.data_dir / "files/batches").iterdir()), "the parts are one file now"
    assert next(one.id for one in sdk.batches.list(limit=1)) == made.id
    outputs = sdk.files.list(purpose="batch_output").data
    assert [one.id for one in outputs] == [batch.output_file_id]
    assert sdk.files.delete(batch.output_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(batch.output_file_id)


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


def test_lines_that_cannot_be_run_go_to_the_error_file(sdk: openai.OpenAI, tmp_path: Path) -> None:
    bad = line("bad", model="echo", messages=[], max_tokens=1)
    lines = [line("good"), bad, line("other", model="nobody", messages=[{"role": "user", "content": "x"}])]
    batch = ended(sdk, create(sdk, write(tmp_path, lines)).id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 1, 2)
    found = {entry["custom_id"]: entry["response"] for entry in entries(sdk, batch.error_file_id)}
    assert {name: answer["status_code"] for name, answer in found.items()} == {"bad": 400, "other": 404}
    assert found["bad"]["body"]["error"]["param"] == "messages"
    assert found["other"]["body"]["error"]["code"] == "model_not_found"


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


def test_results_that_redis_forgot_are_generated_again(
    sdk: openai.OpenAI, redis_client: redis.Redis, tmp_path: Path
) -> None:
    keys = SETTINGS.keys
    redis_client.set(keys.suspended(), "1")  # nothing is claimed yet
    made = create(sdk, write(tmp_path, [line("a", "x y"), line("b", "z")]))
    wait_until(lambda: redis_client.llen(keys.queue("low")) == 2, 20, "the jobs")
    redis_client.delete(keys.queue("low"), *jobs(redis_client))
    redis_client.delete(keys.suspended())
    batch = ended(sdk, made.id)
    assert batch.request_counts.completed == 2
    assert {entry["custom_id"] for entry in entries(sdk, batch.output_file_id)} == {"a", "b"}


def test_the_command_leaves_nothing_of_an_earlier_run_and_skips_empty_lines(api: Api, tmp_path: Path) -> None:
    output, errors = tmp_path / "out.jsonl", tmp_path / "out.jsonl.errors"
    errors.write_text("of an earlier run")
    run = ["batch", "run", str(tmp_path / "input.jsonl"), "-o", str(output), "--url", f"http://127.0.0.1:{api.port}"]
    write(tmp_path, ["", line("a", "x y")])
    assert main(run) == 0
    assert (json.loads(output.read_text())["custom_id"], errors.exists()) == ("a", False)
    write(tmp_path, [line("a"), "{"])
    assert main(run) == 1
    assert output.exists(), "a batch that did not run says nothing about what is there"
    write(tmp_path, [line("b", model="nobody", messages=[])])
    assert main(run) == 1
    assert (json.loads(errors.read_text())["custom_id"], output.exists()) == ("b", False)


def test_an_interrupted_command_says_how_to_go_on() -> None:
    given = argparse.Namespace(output="my out", url="http://other:1", key_variable="MY_KEY")
    told = how_to_go_on(given, "batch_1")
    assert told.endswith("promptq batch run --batch batch_1 -o 'my out' --url http://other:1 --key-variable MY_KEY")


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("away/out.jsonl", [], "there is no folder"),
        (".", [], "is a folder"),
        ("out.jsonl", ["--key-variable", "PROMPTQ_TEST_UNSET"], "PROMPTQ_TEST_UNSET is not set"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_uploads(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, more: list[str], said: str
) -> None:
    url = f"http://127.0.0.1:{api.port}"
    path = str(write(tmp_path, [line("a")]))
    before = api.call("GET", "/v1/files").json()["data"]
    assert main(["batch", "run", path, "-o", str(tmp_path / output), "--url", url, *more]) == 1
    assert said in capsys.readouterr().err
    assert api.call("GET", "/v1/files").json()["data"] == before
