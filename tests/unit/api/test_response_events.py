"""The numbers of a response's events: the same whoever reads, whenever, in whatever pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.openai.response_events import ResponseEvents
from promptq.contract.job import Job, JobError, Result, Status
from promptq.contract.queues import QueueName
from promptq.openai.responses import CreateResponse
from tests.unit.api.test_tool_calls import GOOD, PIECES

TEXT = "Once upon a time"
TOOLS = [{"type": "function", "name": "f"}]
RUNNING = Job("j", Status.RUNNING, QueueName("m", "low"), 12.7)


def ended(status: Status = Status.SUCCEEDED, reason: str = "stop", text: str = TEXT, **fields: Any) -> Job:
    return Job("j", status, QueueName("m", "low"), 12.7, result=Result(text, reason, "m", 3, 4, **fields))


def failed(status: Status, kind: str, **fields: Any) -> Job:
    return Job("j", status, QueueName("m", "low"), 12.7, error=JobError(kind, "why"), **fields)


def read(after: int, cuts: list[int], job: Job | None = None, **shown: Any) -> list[dict[str, Any]]:
    """The events that a client gets who has those up to a number, and looks when there are so many characters."""
    job = job or ended()
    text = job.result.text if job.result else TEXT
    telling = ResponseEvents(RUNNING, shown, after)
    said = [*telling.begin(), *(event for cut in sorted(cuts) for event in telling.text(text[:cut]))]
    said += [*telling.text(text, job.result.logprobs if job.result else ()), *telling.end(job)]
    return [json.loads(event.split("data: ")[1]) for event in said]


def by_characters(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With an event for each character of text, as if a client had read along at each."""
    apart = []
    for event in events:
        if event["type"] != "response.output_text.delta":
            apart.append(event)
            continue
        first = event["sequence_number"] - len(event["delta"]) + 1
        apart += [event | {"delta": letter, "sequence_number": first + at} for at, letter in enumerate(event["delta"])]
    return apart


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


@given(st.lists(st.integers(0, len(TEXT))), st.data())
def test_whoever_goes_on_after_an_event_misses_nothing_and_hears_nothing_twice(
    cuts: list[int], data: st.DataObject
) -> None:
    whole = read(-1, cuts)
    numbers = [event["sequence_number"] for event in whole]
    assert numbers == sorted(set(numbers))
    assert text_of(whole) == TEXT
    last = data.draw(st.integers(0, len(whole) - 1))
    rest = read(numbers[last], data.draw(st.lists(st.integers(0, len(TEXT)))))
    assert text_of(whole[: last + 1]) + text_of(rest) == TEXT
    assert all(event["sequence_number"] > numbers[last] for event in rest)
    ends = [event for event in whole if event["type"].endswith((".done", ".completed"))]
    assert [event for event in rest if event in ends] == [
        event for event in ends if event["sequence_number"] > numbers[last]
    ]


@pytest.mark.parametrize(
    ("job", "last"),
    [
        (ended(), "response.completed"),
        (ended(reason="length"), "response.incomplete"),
        (ended(Status.CANCELLED, "cancelled"), "response.incomplete"),
        (failed(Status.FAILED, "timeout", result=Result(TEXT, "stop", "m", 3, 4)), "response.failed"),
        (failed(Status.EXPIRED, "expired"), "response.failed"),
    ],
)
def test_how_a_stream_ends(job: Job, last: str) -> None:
    events = read(-1, [], job)
    assert events[-1]["type"] == last
    assert events[-1]["response"]["id"] == "resp_j"


def test_the_first_events_are_the_same_for_those_who_come_after_the_end() -> None:
    late = replace(ended(reason="length"), started_at=13.0, finished_at=14.0)
    said = [[*ResponseEvents(job, {}).begin(), *ResponseEvents(job, {}).text("")] for job in (RUNNING, late)]
    assert said[0] == said[1]


def test_who_goes_on_behind_an_error_misses_nothing() -> None:
    telling = ResponseEvents(RUNNING, {})
    told = [*telling.begin(), *telling.text(TEXT[:5])]
    error = json.loads(telling.error("shutting_down", "restarts").split("data: ")[1])
    assert (error["type"], error["code"], error["message"]) == ("error", "shutting_down", "restarts")
    assert error["sequence_number"] == json.loads(told[-1].split("data: ")[1])["sequence_number"]
    assert text_of(read(error["sequence_number"], [])) == TEXT[5:]


def test_a_job_without_a_result_ends_its_stream_after_text_too() -> None:
    telling = ResponseEvents(RUNNING, {})
    told = [*telling.begin(), *telling.text(TEXT)]
    (last,) = telling.end(failed(Status.FAILED, "worker_lost"))
    assert "response.failed" in last
    assert json.loads(last.split("data: ")[1])["sequence_number"] > len(told)


@settings(deadline=None)
@given(PIECES, st.data(), st.booleans())
def test_with_calls_whoever_goes_on_after_any_number_gets_exactly_what_is_behind_it(
    pieces: list[str], data: st.DataObject, parallel: bool
) -> None:
    job, shown = ended(text="".join(pieces)), {"tools": TOOLS, "parallel_tool_calls": parallel}
    cuts = st.lists(st.integers(0, len(job.result.text)))
    whole, others = by_characters(read(-1, data.draw(cuts), job, **shown)), data.draw(cuts)
    numbers = [event["sequence_number"] for event in whole]
    assert numbers == sorted(set(numbers))
    for after in range(-1, numbers[-1] + 3):
        rest = by_characters(read(after, others, job, **shown))
        assert rest == [event for event in whole if event["sequence_number"] > after]


@given(PIECES)
def test_the_items_of_a_stream_are_those_of_the_response(pieces: list[str]) -> None:
    *events, last = read(-1, [], ended(text="".join(pieces)), tools=TOOLS)
    done = [event for event in events if event["type"] == "response.output_item.done"]
    begun = [event for event in events if event["type"] == "response.output_item.added"]
    assert [event["item"] for event in done] == last["response"]["output"] != []
    assert [event["output_index"] for event in done] == list(range(len(done)))
    assert [(event["output_index"], event["item"]["id"]) for event in begun] == [
        (event["output_index"], event["item"]["id"]) for event in done
    ]


def test_calls_between_messages_and_the_tokens_of_each() -> None:
    texts = ["Lö", "ok ", GOOD, "\n", "d", "one", ""]
    tokens = tuple({"token": text, "logprob": -1.0, "top_logprobs": []} for text in [*texts[:-1], "STOP"])
    job = ended(text="".join(texts), logprobs=tokens)
    *_, last = read(-1, [], job, tools=TOOLS)
    before, call, behind = last["response"]["output"]
    assert call == {
        "id": "fc_j_0", "type": "function_call", "call_id": "call_j_0", "name": "f", "arguments": '{"a":  1}',
        "status": "completed",
    }  # fmt: skip
    assert [(item["id"], item["status"], item["content"][0]["text"]) for item in (before, behind)] == [
        ("msg_j", "completed", "Löok"), ("msg_j_1", "completed", "done"),
    ]  # fmt: skip
    told = [[entry["token"] for entry in item["content"][0]["logprobs"]] for item in (before, behind)]
    assert told == [["Lö", "ok "], ["\n", "d", "one", "STOP"]]


def test_what_was_cut_is_incomplete_but_for_whole_calls() -> None:
    *_, last = read(-1, [], ended(reason="length", text=f"a {GOOD} b"), tools=TOOLS)
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "completed", "incomplete"]
    assert last["type"] == "response.incomplete"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_a_response_shows_what_was_asked_of_its_tools(choice: Any) -> None:
    body = {"model": "m", "input": "x", "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    shown = CreateResponse.model_validate(body).shown()
    assert shown == {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
