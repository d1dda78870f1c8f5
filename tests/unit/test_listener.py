"""When a quiet connection is asked for a word, and when it is given up."""

from __future__ import annotations

import threading

import redis

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.listener import ANSWER_SECONDS, PING_SECONDS, Listener, Pulse
from tests.processes import wait_until


def test_it_is_asked_once_after_a_quiet_while() -> None:
    pulse = Pulse(100.0)
    asked = [pulse.ask(100.0 + PING_SECONDS * share) for share in (0.5, 1.0, 1.5)]
    assert asked == [False, True, False]


def test_it_is_dead_when_the_answer_is_overdue() -> None:
    pulse = Pulse(100.0)
    assert pulse.ask(110.0)
    assert not pulse.is_dead(110.0 + ANSWER_SECONDS / 2)
    assert pulse.is_dead(110.0 + ANSWER_SECONDS)


def test_one_that_was_not_asked_is_not_dead_however_long_it_was_quiet() -> None:
    """As after the process was stopped for a while."""
    assert not Pulse(100.0).is_dead(10_000.0)


def test_whatever_comes_is_an_answer() -> None:
    pulse = Pulse(100.0)
    pulse.ask(110.0)
    pulse.hear(111.0)
    assert not pulse.is_dead(111.0 + ANSWER_SECONDS)
    assert not pulse.ask(111.0)
    assert pulse.ask(111.0 + PING_SECONDS)


def test_whatever_whoever_is_called_does_the_next_message_is_heard(server: EmbeddedServer, client: redis.Redis) -> None:
    heard: list[str] = []
    connected = threading.Semaphore(0)

    def on_message(_channel: str, text: str) -> None:
        heard.append(text)
        if text == "break":
            raise ValueError("on purpose")

    listener = Listener(server.url, ["test:channel"], on_message, connected.release)
    listener.start()
    try:
        assert connected.acquire(timeout=10)
        client.publish("test:channel", b"\xff no text")
        client.publish("test:channel", "break")
        assert connected.acquire(timeout=10)  # it has subscribed anew
        client.publish("test:channel", "sane")
        wait_until(lambda: heard[-1:] == ["sane"])
        assert heard == ["\ufffd no text", "break", "sane"]
    finally:
        listener.close()
        listener.join(10)
