from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.job import FIELDS, TRANSITIONS, Job, Result, Status, from_iso, to_iso
from promptq.contract.queues import QueueName
from promptq.queue.records import Claim, Ending


def test_terminal_states_never_change() -> None:
    assert {state for state in Status if state.is_terminal} == {
        Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED,
    }  # fmt: skip
    assert Status.QUEUED in TRANSITIONS[Status.RUNNING]


@given(st.text(), st.integers(0, 10**6), st.floats(0, 1e6))
def test_a_result_survives_its_encoding(text: str, tokens: int, seconds: float) -> None:
    result = Result(text, "stop", "m", tokens, tokens, round(seconds, 6), None, round(seconds, 6), 3)
    assert Result.decode(result.encode()) == result


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_an_embedding_survives_its_encoding_to_the_bit(embedding: list[float]) -> None:
    result = Result("", "stop", "m", 3, embedding=embedding)
    again = Result.decode(result.encode())
    assert list(again.embedding) == embedding
    assert again.as_dict() == result.as_dict()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e39])
def test_an_embedding_of_other_numbers_is_not_stored(number: float) -> None:
    with pytest.raises(ValueError, match="finite float32"):
        Result("", "stop", "m", embedding=[0.5, number]).encode()
    claim = Claim("id", QueueName("m", "default"), "e-0")
    stored = Ending(claim, Status.SUCCEEDED, Result("", "stop", "m", embedding=[number])).storable()
    assert (stored.state, stored.error and stored.error.type) == (Status.FAILED, "engine_error")


@given(st.floats(0, 4e9))
def test_times_survive_rqs_format(seconds: float) -> None:
    assert from_iso(to_iso(seconds)) == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    ("rq_status", "error_type", "ours"),
    [
        ("queued", "", Status.QUEUED), ("deferred", "", Status.QUEUED), ("scheduled", "", Status.QUEUED),
        ("started", "", Status.RUNNING), ("finished", "", Status.SUCCEEDED), ("failed", "oom", Status.FAILED),
        ("failed", "expired", Status.EXPIRED), ("canceled", "", Status.CANCELLED), ("stopped", "", Status.CANCELLED),
    ],
)  # fmt: skip
def test_rqs_states_have_our_names(rq_status: str, error_type: str, ours: Status) -> None:
    known = {"status": rq_status.encode(), "error_type": error_type.encode(), "created_at": to_iso(1.0).encode()}
    assert Job.from_fields("x", "m", [known.get(name) for name in FIELDS]).status is ours
