"""The lines of a batch's input, in chunks of any size; windows, and the bits of lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.batch_lines import BYTE_ORDER_MARK, MOST_ERRORS, LineCheck, errors_for, numbered, read_line
from promptq.contract.batches import is_done, window_seconds

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode() + b"\n"


def checked(content: bytes, size: int = 7, most: int = 100) -> LineCheck:
    check = LineCheck((CHAT, TEXT), most)
    for start in range(0, len(content), size):
        check.feed(content[start : start + size])
    check.end()
    return check


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"{\n", "invalid_json_line", None),
        (b"[1]\n", "invalid_json_line", None),
        (b"\xff\n", "invalid_json_line", None),
        (line(body=None)[:-2] + b', "x": NaN}\n', "invalid_json_line", None),
        (line(None), "missing_required_parameter", "custom_id"),
        (line(""), "missing_required_parameter", "custom_id"),
        (line(7), "missing_required_parameter", "custom_id"),
        (line("x" * 513), "missing_required_parameter", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/jobs"), "invalid_url", "url"),
        (line(url=3), "invalid_url", "url"),
        (line(body=[1]), "invalid_request", "body"),
        (line("first"), "duplicate_custom_id", "custom_id"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(raw: bytes, code: str, param: str | None) -> None:
    check = checked(line("first") + b"\n" + raw + line("last", url=TEXT))
    [error] = check.errors
    assert (error.line, error.code, error.param) == (3, code, param)
    assert (check.lines, check.first_lines["/v1/chat/completions"], check.first_lines[TEXT]) == (3, 1, 4)


def test_a_last_line_needs_no_end_and_an_empty_file_is_an_error() -> None:
    assert checked(line("a") + line("b").strip()).lines == 2
    assert [error.code for error in checked(b"\n  \n").errors] == ["empty_file"]


@pytest.mark.parametrize(
    ("models", "told"),
    [(["m", "m"], "m"), (["m", "n"], ""), (["m", None], ""), ([None], ""), (["m" * 129], ""), ([["m"]], "")],
)
def test_the_model_is_what_all_lines_name(models: list[Any], told: str) -> None:
    bodies = [{} if model is None else {"model": model} for model in models]
    assert checked(b"".join(line(str(place), body=body) for place, body in enumerate(bodies))).model == told


def test_marks_and_ends_of_lines_of_other_systems_do_not_matter() -> None:
    content = BYTE_ORDER_MARK + (line("a") + line("b")).replace(b"\n", b"\r\n")
    check = checked(content)
    assert (check.lines, check.errors) == (2, [])
    assert [read_line(raw)["custom_id"] for _, raw in numbered(iter(content.split(b"\n")))] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((line("a") * 200).decode().encode("utf-16"), "UTF-16"),
        ((line("a") * 200).decode().encode("utf-16-le"), "UTF-16"),
        (json.dumps([json.loads(line("a"))] * 200, indent=1).encode(), "JSON Lines"),
        (BYTE_ORDER_MARK + json.dumps(json.loads(line("a")), indent=1).encode() * 200, "JSON Lines"),
    ],
)
def test_a_file_of_another_kind_is_one_error_that_says_what_to_do(content: bytes, said: str) -> None:
    (error,) = checked(content).errors
    assert (error.code, said in error.message) == ("invalid_json_line", True)


def test_bounds() -> None:
    many = b"".join(line(str(number)) for number in range(5))
    assert [(error.code, error.line) for error in checked(many, most=3).errors] == [("too_many_lines", 4)]
    assert len(checked(b"{,\n" * 1000, most=10_000).errors) == MOST_ERRORS


def test_a_batch_is_for_one_endpoint() -> None:
    check = checked(line("a") + line("b", url=TEXT) + b"{\n")
    errors = errors_for(CHAT, check.first_lines, [error.as_dict() for error in check.errors])
    assert [(error["line"], error["code"]) for error in errors] == [(2, "mismatched_url"), (3, "invalid_json_line")]


@given(
    st.lists(st.sampled_from([line("a"), line("b"), b"\n", b"{\n", line("c", url=TEXT)]), max_size=12),
    st.integers(1, 200),
)
def test_the_size_of_the_chunks_does_not_matter(lines: list[bytes], size: int) -> None:
    whole, cut = checked(b"".join(lines), 10**6), checked(b"".join(lines), size)
    assert (whole.lines, whole.errors, whole.first_lines) == (cut.lines, cut.errors, cut.first_lines)


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86_400), ("15m", 900), ("60s", 60), ("7d", 604_800)])
def test_windows(window: str, seconds: int) -> None:
    assert window_seconds(window) == seconds


@pytest.mark.parametrize("window", ["", "24", "0h", "59s", "31d", "24 h", "-1h", "1h\n", "٢h"])
def test_what_is_no_window(window: str) -> None:
    with pytest.raises(ValueError, match=r"give|between"):
        window_seconds(window)


def test_bits_are_those_of_redis() -> None:
    bitmap = bytes([0b0100_0000, 0b1000_0000])
    assert [number for number in range(40) if is_done(bitmap, number)] == [1, 8]
