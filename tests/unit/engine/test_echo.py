"""The echo engine, driven by a clock of the test's own."""

import signal
import subprocess
import sys
import time

import pytest

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.echo import LONGEST_SLEEP_SECONDS, EchoEngine
from gpu_worker.engines.registry import create_engine
from promptq.contract.request import GenerateRequest, Message
from promptq.contract.settings import WorkerSettings


def engine(pace=10.0, slots=4, **kwargs) -> EchoEngine:
    return EchoEngine(slots, pace, sleep=kwargs.pop("sleep", lambda seconds: None), **kwargs)


def row(id="a", prompt="one two three", deadline=None, **fields) -> Row:
    return Row(id, GenerateRequest(prompt=prompt, **fields), deadline=deadline)


def run(echo: EchoEngine, until: float = 10.0, tick: float = 0.05):
    """Step until every row has ended; events by id."""
    events: dict[str, list] = {}
    for index in range(int(until / tick)):
        for event in echo.step(1000 + index * tick).events:
            events.setdefault(event.id, []).append(event)
        if not echo.live_rows():
            break
    return events


def test_it_returns_the_prompts_words_one_per_token():
    echo = engine()
    echo.add([row()])
    events = run(echo)["a"]
    assert [(event.text, event.tokens) for event in events] == [("one", 1), (" two", 1), (" three", 1)]
    finished = events[-1].end
    assert (finished.reason, finished.text, finished.completion_tokens) == (FinishReason.STOP, "one two three", 3)
    assert finished.prompt_tokens == 3
    assert echo.free_slots() == 4


def test_the_pace_is_per_row_and_follows_now():
    echo = engine(pace=2)
    echo.add([row("a"), row("b")])
    assert echo.step(100.0).events == []
    result = echo.step(101.0)
    assert [event.tokens for event in result.events] == [2, 2]
    assert result.stats.rows == 2
    assert all(event.end.batch_size == 2 for event in echo.step(101.5).events)


def test_pace_zero_ends_everything_on_the_next_step():
    echo = engine(pace=0)
    echo.add([row("a"), row("b", max_tokens=2)])
    a, b = echo.step(0.0).events
    assert (a.end.reason, a.text) == (FinishReason.STOP, "one two three")
    assert (b.end.reason, b.text, b.tokens) == (FinishReason.LENGTH, "one two", 2)


def test_a_prompt_without_words_ends_at_once():
    echo = engine()
    echo.add([row(prompt="  ")])
    (event,) = echo.step(0.0).events
    assert (event.end.reason, event.end.text, event.tokens) == (FinishReason.STOP, "", 0)
    assert event.end.batch_size == 1


def test_a_chat_echoes_the_last_user_message():
    turns = [
        Message(role="user", content="first"),
        Message(role="assistant", content="yes"),
        Message(role="user", content="the last"),
    ]
    echo = engine(pace=0)
    echo.add([Row("a", GenerateRequest(messages=turns))])
    assert echo.step(0.0).events[0].end.text == "the last"


def test_a_stop_string_across_words_cuts_the_text():
    echo = engine()
    echo.add([row(stop=["o th"])])
    events = run(echo)["a"]
    assert "".join(event.text for event in events) == events[-1].end.text == "one tw"
    assert events[-1].end.reason is FinishReason.STOP


def test_a_cancelled_row_keeps_its_partial_text():
    echo = engine(pace=1)
    echo.add([row()])
    echo.step(0.0)
    echo.step(1.0)
    echo.cancel(["a", "unknown"])
    (event,) = echo.step(2.0).events
    assert (event.end.reason, event.end.text) == (FinishReason.CANCELLED, "one")
    echo.add([row()])
    assert echo.step(3.0).events == []


def test_a_deadline_ends_a_row():
    echo = engine(pace=1)
    echo.add([row(deadline=2.5)])
    assert run_at(echo, 0.0, 1.0, 2.5)[-1].end.reason is FinishReason.TIMEOUT


def run_at(echo: EchoEngine, *times: float):
    return [event for now in times for event in echo.step(now).events]


def test_it_sleeps_until_the_next_word_but_not_long():
    slept: list[float] = []
    echo = engine(pace=1, sleep=slept.append)
    echo.step(0.0)
    assert slept == []
    echo.add([row()])
    echo.step(0.0)
    echo.step(0.99)
    assert slept == [LONGEST_SLEEP_SECONDS, pytest.approx(0.01)]


def test_create_engine_builds_it_without_torch():
    settings = WorkerSettings(engine="echo", slots=3)
    assert create_engine(settings).info.slots == 3
    code = (
        "import sys; from gpu_worker.engines.registry import create_engine;"
        "from promptq.contract.settings import WorkerSettings;"
        "create_engine(WorkerSettings(engine='echo')); print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_a_start_takes_as_long_as_the_settings_say():
    before = time.monotonic()
    create_engine(WorkerSettings(engine="echo", echo_start_seconds=0.2))
    assert time.monotonic() - before >= 0.2


def test_a_signal_that_is_handled_ends_the_start():
    before, handler = time.monotonic(), signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        create_engine(WorkerSettings(engine="echo", echo_start_seconds=60))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert time.monotonic() - before < 30
