"""The numbers of a response's events: the same whoever reads, whenever, in whatever pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.openai.response_events import ResponseEvents
from promptq.contract.job import Job, JobError, Result, Status
from promptq.contract.queues import QueueName

TEXT = "Once upon a time"
RUNNING = Job("j", Status.RUNNING, QueueName("m", "low"), 12.7)


def ended(status: Status = Status.SUCCEEDED, reason: str = "stop", **fields: Any) -> Job:
    return Job("j", status, QueueName("m", "low"), 12.7, result=Result(TEXT, reason, "m", 3, 4), **fields)


def read(after: int, cuts: list[int], job: Job | None = None) -> list[dict[str, Any]]:
    """The events that a client gets who has those up to a number, and looks when there are so many characters."""
    telling = ResponseEvents(RUNNING, {}, after)
    said = [*telling.begin(), *(event for cut in sorted(cuts) for event in telling.text(TEXT[:cut]))]
    said += [*telling.text(TEXT), *telling.end(job or ended())]
    return [json.loads(event.split("data: ")[1]) for event in said]


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
        (ended(Status.FAILED, error=JobError("timeout", "too long")), "response.failed"),
        (ended(Status.EXPIRED, error=JobError("expired", "too late")), "response.failed"),
    ],
)
def test_how_a_stream_ends(job: Job, last: str) -> None:
    events = read(-1, [], job)
    assert events[-1]["type"] == last
    assert events[-1]["response"]["id"] == "resp_j"


def test_an_error_comes_after_all_that_was_told() -> None:
    telling = ResponseEvents(RUNNING, {})
    told = [*telling.begin(), *telling.text(TEXT)]
    error = json.loads(telling.error("started_over", "lost").split("data: ")[1])
    assert error["sequence_number"] > json.loads(told[-1].split("data: ")[1])["sequence_number"]
    assert (error["type"], error["code"], error["message"]) == ("error", "started_over", "lost")


def test_a_job_without_a_result_ends_its_stream_after_text_too() -> None:
    telling = ResponseEvents(RUNNING, {})
    told = [*telling.begin(), *telling.text(TEXT)]
    lost = Job("j", Status.FAILED, QueueName("m", "low"), 12.7, error=JobError("worker_lost", "gone"))
    (last,) = telling.end(lost)
    assert "response.failed" in last
    assert json.loads(last.split("data: ")[1])["sequence_number"] > len(told)
