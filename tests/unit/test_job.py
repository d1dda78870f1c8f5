from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.job import FIELDS, TRANSITIONS, Job, Result, Status, from_iso, to_iso


def test_terminal_states_never_change() -> None:
    assert {state for state in Status if state.is_terminal} == {
        Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED,
    }  # fmt: skip
    assert Status.QUEUED in TRANSITIONS[Status.RUNNING]


@given(st.text(), st.integers(0, 10**6), st.floats(0, 1e6))
def test_a_result_survives_its_encoding(text: str, tokens: int, seconds: float) -> None:
    result = Result(text, "stop", "m", tokens, tokens, round(seconds, 6), None, round(seconds, 6), 3)
    assert Result.decode(result.encode()) == result


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
