"""What an answer means for the job."""

from __future__ import annotations

import pytest
from pydantic_core import from_json, to_json

from gpu_worker.engines.upstream.failures import Kind, of_status, of_stream_error, retry_after


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Kind.REQUEST) for status in (400, 413, 415, 422, 418)),
        *((status, Kind.REFUSED) for status in (301, 401, 402, 403, 404, 405, 408, 409, 429, 502, 503, 504, 529)),
        *((status, Kind.FAILED) for status in (500, 501, 520)),
    ],
)
def test_each_status_has_its_kind(status: int, kind: Kind) -> None:
    assert of_status(status, b"").kind is kind


def test_only_a_server_with_too_much_to_do_is_busy() -> None:
    quota = b'{"error": {"code": "insufficient_quota", "message": "pay"}}'
    assert of_status(429, b"").is_busy
    assert not of_status(503, b"").is_busy
    assert not of_status(429, quota).is_busy


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"message": "no", "object": "error"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b"<html>no</html>", "<html>no</html>"),
        (b"\xff", "\ufffd"),
        (b"", "HTTP 400"),
    ],
)
def test_what_the_server_says_is_handed_on(body: bytes, message: str) -> None:
    assert of_status(400, body).message == message


def test_a_long_message_is_cut() -> None:
    assert len(of_status(400, b"x" * 10_000).message) < 510


def test_an_error_in_a_stream_may_be_the_requests() -> None:
    assert of_stream_error({"type": "invalid_request_error", "message": "no"}).kind is Kind.REQUEST
    assert of_stream_error({"code": 400, "message": "no"}).kind is Kind.REQUEST
    assert of_stream_error({"code": 500}).kind is Kind.FAILED
    assert of_stream_error("broken").kind is Kind.FAILED


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "expected"),
    [
        ("3", None, 3.0), ("3", "1500", 1.5), (None, "x", None), ("Wed, 21 Oct", None, None), ("-1", None, None),
        ("inf", None, None), ("nan", None, None), (None, None, None), ("2", "x", 2.0),
    ],
)  # fmt: skip
def test_when_to_come_again(seconds: str | None, milliseconds: str | None, expected: float | None) -> None:
    assert retry_after(seconds, milliseconds) == expected


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ('{"message": "dimensions: 32 only"}', "dimensions: 32 only"),
        ('{"message": "at most 32", "param": "dimensions"}', "dimensions: at most 32"),
        ('{"message": "No other output dimension."}', "dimensions: No other output dimension."),
        ('{"message": "no input", "param": "input"}', "no input"),
    ],
)
def test_what_a_message_is_about_goes_before_it(error: str, named: str) -> None:
    assert of_status(400, f'{{"error": {error}}}'.encode()).naming("dimensions") == named
    assert of_stream_error(from_json(error) | {"code": 400}).naming("dimensions") == named


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("This model's maximum context length is 64 tokens.", "prompt_too_long"),
        ("input: The prompt has 5,002 tokens; the context is 64.", "prompt_too_long"),
        ("the request exceeds the available context size", "prompt_too_long"),
        ("the model has no token 9", "invalid_request"),
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_what_is_said(message: str, kind: str) -> None:
    assert of_status(400, to_json({"error": {"message": message, "code": 400}})).type == kind
