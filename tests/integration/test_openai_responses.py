"""Responses with the unchanged openai SDK. `make test-extras` runs this file with older SDKs too."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
import requests

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, keys
from tests.integration.apis import Api, running
from tests.integration.openai_clients import WORDS, api, fast, jobs, sdk, slow
from tests.processes import wait_until, worker

__all__ = ["api", "fast", "sdk", "slow"]


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


@pytest.mark.usefixtures("fast")
def test_a_response_and_one_behind_it(sdk: openai.OpenAI, store: TimedStore) -> None:
    first = sdk.responses.create(model="echo", input=WORDS, instructions="Be brief.", metadata={"of": "mine"})
    assert (first.output_text, first.status, first.instructions) == (WORDS, "completed", "Be brief.")
    assert first.usage
    assert (first.usage.input_tokens, first.usage.output_tokens) == (20, 20)
    second = sdk.responses.create(model="echo", input="and then", previous_response_id=first.id, temperature=0)
    assert (second.output_text, second.previous_response_id) == ("and then", first.id)
    kept = sdk.responses.retrieve(second.id)
    assert kept == second
    claimed = requests.get(f"{sdk.base_url}jobs/{second.id.removeprefix('resp_')}", timeout=5).json()
    assert claimed["status"] == "succeeded", "the id leads to the job"


@pytest.mark.usefixtures("fast")
def test_items_are_turns_and_a_limit_leaves_it_incomplete(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="echo", input="once")
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"role": "user", "content": [{"type": "input_text", "text": WORDS}]},
    ]
    answer = sdk.responses.create(model="echo", input=items, max_output_tokens=3)
    assert answer.output_text == " ".join(WORDS.split()[:3])
    assert answer.incomplete_details
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.usefixtures("slow")
def test_a_stream_and_what_the_sdk_makes_of_it(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="echo", input=WORDS) as stream:
        events = list(stream)
        whole = stream.get_final_response()
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert whole.output_text == WORDS
    assert len([event for event in events if event.type == "response.output_text.delta"]) > 10


def test_one_in_the_background_survives_its_worker_and_is_read_on_from_anywhere(
    sdk: openai.OpenAI, server: EmbeddedServer, store: TimedStore, api: Api
) -> None:
    response = sdk.responses.create(model="echo", input=WORDS, background=True)
    assert response.status == "queued"
    with worker(server, "first", echo_tokens_per_second=10, lease_seconds=60) as process:
        came: Any = iter(sdk.responses.retrieve(response.id, stream=True))
        events: list[Any] = []
        while len(text_of(events)) < 40:
            events.append(next(came))
        assert sdk.responses.retrieve(response.id).status == "in_progress"
        process.kill()
        process.wait(10)
    came.close() if hasattr(came, "close") else None
    store.take_back("first", time.time())
    after = events[-1].sequence_number
    with (
        worker(server, "second", echo_tokens_per_second=20),
        running(server, api.data_dir / "another", 1) as other,
        openai.OpenAI(base_url=f"http://127.0.0.1:{other.port}/v1", api_key="any") as elsewhere,
    ):
        rest = list(elsewhere.responses.retrieve(response.id, stream=True, starting_after=after))
    assert text_of(events) + text_of(rest) == WORDS
    assert rest[0].sequence_number > after
    assert rest[-1].type == "response.completed"
    again = list(sdk.responses.retrieve(response.id, stream=True))
    assert (again[0].type, text_of(again)) == ("response.created", WORDS)
    with sdk.responses.stream(response_id=response.id, starting_after=after) as stream:
        assert stream.get_final_response().output_text == WORDS


@pytest.mark.usefixtures("slow")
def test_cancel_twice_and_delete(sdk: openai.OpenAI, store: TimedStore) -> None:
    response = sdk.responses.create(model="echo", input=WORDS, background=True)
    wait_until(lambda: sdk.responses.retrieve(response.id).status == "in_progress")
    time.sleep(0.5)
    cancelled = sdk.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    assert cancelled.output_text
    assert WORDS.startswith(cancelled.output_text)
    assert sdk.responses.cancel(response.id).status == "cancelled"
    sdk.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(response.id)
    (job_id,) = [response.id.removeprefix("resp_")]
    assert not store.client.exists(keys.job(job_id), keys.results(job_id), keys.progress(job_id))
    assert store.client.zcard(keys.canceled("default")) == 0


@pytest.mark.usefixtures("slow")
def test_one_that_runs_is_deleted_after_its_end(sdk: openai.OpenAI, store: TimedStore) -> None:
    response = sdk.responses.create(model="echo", input=WORDS, background=True)
    wait_until(lambda: sdk.responses.retrieve(response.id).status == "in_progress")
    sdk.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(response.id)
    wait_until(lambda: jobs(store) == [], 5)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("background", [True, False])
def test_only_what_is_in_the_foreground_goes_with_its_client(
    sdk: openai.OpenAI, store: TimedStore, background: bool
) -> None:
    stream = sdk.responses.create(model="echo", input=WORDS, stream=True, background=background)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    (job_id,) = jobs(store)
    wait_until(lambda: store.get(job_id).status.is_terminal, 5)
    assert store.get(job_id).status is (Status.SUCCEEDED if background else Status.CANCELLED)


@pytest.mark.usefixtures("fast")
def test_what_is_not_stored_is_not_found(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(model="echo", input=WORDS, store=False)
    assert response.output_text == WORDS
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"background": True, "store": False}, "store"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 10**6}, "max_output_tokens"),
    ],
)
def test_what_is_refused_is_named(sdk: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(**({"model": "echo", "input": "x"} | fields))
    assert param in str(caught.value)


def test_a_foreground_response_cannot_be_cancelled_and_an_unknown_one_is_not_found(
    sdk: openai.OpenAI, fast: None
) -> None:
    response = sdk.responses.create(model="echo", input="x")
    with pytest.raises(openai.BadRequestError):
        sdk.responses.cancel(response.id)
    for unknown in ("resp_unknown", "unknown", f"x{response.id}"):
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.responses.retrieve(unknown)
        assert unknown in str(caught.value)


@pytest.mark.usefixtures("fast")
def test_a_key_is_for_one_kind_of_call(sdk: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "one kind"}
    messages: Any = [{"role": "user", "content": "x"}]
    sdk.chat.completions.create(model="echo", messages=messages, max_tokens=5, extra_headers=key)
    with pytest.raises(openai.ConflictError):
        sdk.responses.create(model="echo", input="x", max_output_tokens=5, extra_headers=key)
    first, second = (
        sdk.responses.create(model="echo", input="y", extra_headers={"Idempotency-Key": "y"}) for _ in "ab"
    )
    assert first.id == second.id
