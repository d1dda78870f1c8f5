"""When a quiet connection is asked for a word, and when it is given up."""

from __future__ import annotations

from promptq.queue.listener import ANSWER_SECONDS, PING_SECONDS, Pulse


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
