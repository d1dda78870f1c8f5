"""What the engine makes of a server that breaks its streams, hangs, and says what makes no sense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.upstream.engine import PATIENCE
from promptq.contract.request import GenerateRequest
from promptq.contract.tools import CALL_CLOSE, CALL_OPEN
from tests.faulty_server import (
    DONE,
    GOOD,
    Act,
    delta,
    faulty,
    hang,
    raw,
    reset,
    status,
    stream,
    text,
    usage,
)
from tests.integration.upstreams import Behind, before_faulty, engine_before
from tests.processes import wait_until

ALL = ["streaming", "logprobs", "tools", "json_schema", "penalties", "logit_bias", "token_prompts"]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[..., Behind]]:
    with ExitStack() as stack:
        yield lambda *acts, **options: stack.enter_context(
            before_faulty(tmp_path, *acts, **{"capabilities": ALL, **options})
        )


BEGUN = text("some")
BROKEN_BEHIND_TEXT: dict[str, Act] = {
    "reset": stream(BEGUN, then=reset),
    "closed": stream(BEGUN),
    "done without a reason": stream(BEGUN, DONE),
    "garbage": stream(BEGUN, "}{"),
    "no chunk": stream(BEGUN, "[1, 2]"),
    "wrong types": stream(BEGUN, {"choices": [{"text": 7}]}),
    "huge": stream(BEGUN, "x" * (5 * 2**20)),
    "huge line without an end": stream(BEGUN, then=raw(b"data: " + b"x" * (5 * 2**20))),
    "not UTF-8": stream(BEGUN, then=raw(b"data: \xff\xfe\n\n")),
    "error": stream(BEGUN, {"error": {"message": "out of memory", "type": "server_error"}}),
    "hangs": stream(BEGUN, then=hang),
}


@pytest.mark.parametrize("how", BROKEN_BEHIND_TEXT)
def test_a_text_that_breaks_off_is_lost_and_the_server_left_alone(behind: Callable[..., Behind], how: str) -> None:
    it = behind(BROKEN_BEHIND_TEXT[how], GOOD, read_timeout_seconds=0.3).run("a")
    assert ([row.id for row in it.lost], it.handed_back) == (["a"], [])
    assert not any(event.end for event in it.events)
    assert it.engine.free_slots() == 0
    assert it.server.url in it.engine.trouble
    it.run("a")
    assert (it.end.text, it.engine.trouble) == ("well done", "")


BROKEN_BEFORE_TEXT: dict[str, Act] = {
    "reset": reset,
    "closed": raw(b""),
    "no HTTP": raw(b"hello\r\n\r\n"),
    "garbage": stream("}{"),
    "empty stream": stream(DONE),
    "500": status(500, '{"error": {"message": "CUDA error"}}'),
    "error": stream({"error": {"message": "no memory", "code": 500}}),
}
REFUSED: dict[str, Act] = {
    "429": status(429, '{"error": {"message": "slow down"}}', retry_after_ms="100"),
    "503": status(503, "<html>", Retry_After="0"),
    "401": status(401, '{"error": {"message": "wrong key"}}'),
    "404": status(404, '{"detail": "Not Found"}'),
    "redirect": status(302, "", Location="http://127.0.0.1/"),
    "no stream": status(200, '{"choices": []}'),
    "unknown model": status(400, '{"error": {"message": "no model", "code": "model_not_found"}}'),
}


@pytest.mark.parametrize("how", [*BROKEN_BEFORE_TEXT, *REFUSED])
def test_what_was_not_begun_goes_back_and_is_tried_again_later(behind: Callable[..., Behind], how: str) -> None:
    act = (BROKEN_BEFORE_TEXT | REFUSED)[how]
    it = behind(act, GOOD, read_timeout_seconds=5).run("a")
    assert (it.handed_back, it.lost, it.events) == (["a"], [], [])
    assert (it.engine.free_slots(), it.engine.trouble != "") == (0, True) or how == "503"
    it.run("a")
    assert it.end.text == "well done"
    assert (it.engine.trouble, it.engine.free_slots()) == ("", 16)


@pytest.mark.parametrize(("how", "is_lost"), [("500", True), ("reset", True), ("429", False), ("503", False)])
def test_what_the_server_fails_on_again_and_again_costs_attempts(
    behind: Callable[..., Behind], how: str, is_lost: bool
) -> None:
    """Or one such job would keep all others from being tried, for ever."""
    it = behind((BROKEN_BEFORE_TEXT | REFUSED)[how], max_retry_seconds=0.06)
    for _ in range(PATIENCE):
        it.run("a")
    assert (it.handed_back, it.lost) == (["a"] * PATIENCE, [])
    it.run("a")
    assert ([row.id for row in it.lost], len(it.handed_back)) == ((["a"], PATIENCE) if is_lost else ([], PATIENCE + 1))


def test_one_at_a_time_tries_a_server_that_refused(behind: Callable[..., Behind]) -> None:
    it = behind(status(503), stream(text("slow"), then=hang), max_retry_seconds=0.1).run("a")
    wait_until(lambda: it.engine.free_slots() == 1, what="the delay's end")
    it.engine.add([Row("b", GenerateRequest(prompt="p"))])
    assert it.engine.free_slots() == 0
    wait_until(lambda: it.step_until_idle() or it.engine.free_slots() == 15, what="its first text")


def test_a_request_at_fault_fails_and_others_go_on(behind: Callable[..., Behind]) -> None:
    too_long = '{"error": {"message": "too long", "code": "context_length_exceeded"}}'
    it = behind(status(400, '{"error": {"message": "top_k: unknown"}}'), status(400, too_long), GOOD)
    assert it.run("a").end.error == ("invalid_request", "top_k: unknown")
    assert it.run("a").end.error == ("prompt_too_long", "too long")
    assert it.engine.free_slots() == 16
    assert it.run("a").end.text == "well done"


def test_without_a_count_and_without_done_a_text_still_ends(behind: Callable[..., Behind]) -> None:
    it = behind(stream(text("a"), text(" b", "length"))).run("a")
    assert (it.end.reason, it.end.text, it.end.completion_tokens, it.end.prompt_tokens) == ("length", "a b", 2, 0)


def test_the_servers_count_is_taken(behind: Callable[..., Behind]) -> None:
    it = behind(stream(text("many words", "stop"), usage(9, 5, 4), DONE)).run("a")
    assert (it.end.prompt_tokens, it.end.reused_tokens, it.end.completion_tokens) == (9, 4, 5)
    assert [token for event in it.events for token in event.token_ids] == list(range(5))


def test_log_probabilities_of_both_kinds_have_one_form(behind: Callable[..., Behind]) -> None:
    legacy = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -0.1, "a": -0.5}], "text_offset": [0]}
    top = [{"token": "b", "logprob": -0.1, "bytes": [98]}]
    content = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top}]
    chat = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": content}, "finish_reason": "stop"}]}
    it = behind(stream(text("a", "stop", logprobs=legacy), DONE), stream(chat, DONE))
    it.run("a", logprobs=True, top_logprobs=1)
    it.run("b", messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=1)
    expected = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -0.1}]}
    assert [event.logprobs for event in it.events if event.logprobs] == [(expected,), (expected,)]


def test_calls_of_tools_become_text_in_the_hermes_form(behind: Callable[..., Behind]) -> None:
    first = delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "look", "arguments": ""}}])
    parts = [delta(tool_calls=[{"index": 0, "function": {"arguments": part}}]) for part in ('{"at": ', "1}")]
    second = delta("tool_calls", tool_calls=[{"index": 1, "function": {"name": "look", "arguments": ""}}])
    it = behind(stream(delta(content="Wait."), first, *parts, second, usage(5, 9), DONE))
    end = it.run("a", messages=[{"role": "user", "content": "x"}], tools=[TOOL]).end
    one = f'{CALL_OPEN}\n{{"name": "look", "arguments": {{"at": 1}}}}\n{CALL_CLOSE}'
    two = f'{CALL_OPEN}\n{{"name": "look", "arguments": {{}}}}\n{CALL_CLOSE}'
    assert (end.text, end.reason, end.completion_tokens) == (f"Wait.\n{one}\n{two}", FinishReason.STOP, 9)
    assert "".join(event.text for event in it.events) == end.text


def test_a_call_that_was_cut_off_stays_without_an_end(behind: Callable[..., Behind]) -> None:
    call = {"index": 0, "function": {"name": "look", "arguments": '{"at": '}}
    it = behind(stream(delta("length", tool_calls=[call]), DONE))
    end = it.run("a", messages=[{"role": "user", "content": "x"}], tools=[TOOL]).end
    assert (end.reason, CALL_CLOSE in end.text) == (FinishReason.LENGTH, False)


def test_what_the_server_keeps_back_is_no_text(behind: Callable[..., Behind]) -> None:
    it = behind(stream(text("so", "content_filter"), DONE)).run("a")
    assert (it.end.reason, it.end.error[0]) == (FinishReason.ERROR, "content_filter")


def test_a_deadline_closes_a_request_that_hangs(behind: Callable[..., Behind]) -> None:
    it = behind(hang).run("a", deadline=time.monotonic() + 0.2)
    assert (it.end.reason, it.handed_back) == (FinishReason.TIMEOUT, [])


def test_an_end_without_an_end_of_the_stream_is_waited_for_a_while_only(
    behind: Callable[..., Behind], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_worker.engines.upstream.exchanges.LAST_WORDS_SECONDS", 0.2)
    it = behind(stream(text("all", "stop"), then=hang)).run("a")
    assert (it.end.reason, it.end.text) == (FinishReason.STOP, "all")


def test_the_key_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "secret")
    with faulty(GOOD) as server:
        engine = engine_before(server.url, tmp_path, api_key_variable="FAR_KEY")
        engine.add([Row("a", GenerateRequest(prompt="p"))])
        wait_until(lambda: engine.step(0.0).events and not engine.live_rows())
        engine.close()
    assert "Authorization: Bearer secret" in server.headers[0]
