from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.errors import InvalidRequest
from promptq.contract.job import FIELDS, TRANSITIONS, Job, Result, Status, decode_call, encode_call, from_iso, to_iso


def test_terminal_states_never_change() -> None:
    assert {state for state in Status if state.is_terminal} == {
        Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED,
    }  # fmt: skip
    assert Status.QUEUED in TRANSITIONS[Status.RUNNING]


@given(st.text(), st.integers(0, 10**6), st.floats(0, 1e6))
def test_a_result_survives_its_encoding(text: str, tokens: int, seconds: float) -> None:
    result = Result(text, "stop", "m", tokens, tokens, round(seconds, 6), None, round(seconds, 6), 3)
    assert Result.decode(result.encode()) == result


def test_a_call_survives_its_encoding_with_and_without_compression() -> None:
    kwargs = {"prompt": "häß 🙂", "max_tokens": 3}
    assert decode_call(encode_call(kwargs)) == kwargs
    assert decode_call(zlib.compress(encode_call(kwargs))) == kwargs


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05pickle", b"[]", b"{}", b"null", b'["promptq.generate", null, []]',
        json.dumps(["os.system", None, ["true"], {}]).encode(),
        json.dumps(["promptq.generate", None, ["positional"], {}]).encode(),
        json.dumps(["promptq.generate", {"instance": 1}, [], {}]).encode(),
        json.dumps(["promptq.generate", None, [], []]).encode(),
    ],
)  # fmt: skip
def test_any_other_call_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_call(data)


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
    assert Job.from_fields("x", [known.get(name) for name in FIELDS]).status is ours


def test_a_small_call_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = zlib.compress(b" " * 300 * 2**20)
    assert len(bomb) < 400_000
    with pytest.raises(InvalidRequest, match="unpacks to more"):
        decode_call(bomb)


def test_a_call_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a JSON call"):
        decode_call(b"[" * 200_000)
