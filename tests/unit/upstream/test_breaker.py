"""When a server is left alone, and how many requests it gets."""

from __future__ import annotations

import pytest

from gpu_worker.engines.upstream.breaker import Breaker
from gpu_worker.engines.upstream.concurrency import Concurrency


def breaker(chance: float = 1.0, most: float = 60.0) -> Breaker:
    return Breaker(most, lambda: chance)


def test_it_opens_at_the_first_refusal_and_closes_at_an_answer_to_what_was_sent_since() -> None:
    it = breaker()
    for number in range(3):
        it.sent(number)
    assert it.room(0.0) is None
    assert it.refused(0, 0.0, None)
    assert (it.is_open, it.room(0.9)) == (True, 0)
    it.answered(1)
    assert it.is_open, "that was sent before"
    assert it.room(1.0) == 1
    it.sent(3)
    assert it.room(1.0) == 0, "one at a time"
    it.answered(3)
    assert (it.is_open, it.room(1.0)) == (False, None)


def test_several_refusals_at_once_count_once() -> None:
    it = breaker()
    for number in range(8):
        it.sent(number)
    assert [it.refused(number, 0.0, None) for number in range(8)] == [True] + [False] * 7
    assert it.delay == 1.0


def test_each_try_that_fails_doubles_the_delay_up_to_a_bound() -> None:
    it, delays = breaker(most=10.0), []
    for number in range(6):
        it.sent(number)
        it.refused(number, 0.0, None)
        delays.append(it.delay)
    assert delays == [1, 2, 4, 8, 10, 10]
    it.sent(6)
    it.answered(6)
    it.sent(7)
    it.refused(7, 0.0, None)
    assert it.delay == 1.0, "an answer makes it begin anew"


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_chance_spreads_the_delays(chance: float, delay: float) -> None:
    it = breaker(chance)
    it.sent(0)
    it.refused(0, 0.0, None)
    assert it.delay == delay


@pytest.mark.parametrize(("asked", "delay"), [(3.0, 3.0), (0.0, 0.05), (1e9, 60.0)])
def test_what_the_server_asks_for_is_done_within_bounds(asked: float, delay: float) -> None:
    it = breaker(chance=0.0)
    it.sent(0)
    it.refused(0, 0.0, asked)
    assert it.delay == delay


def test_a_try_that_is_cancelled_leaves_room_for_the_next() -> None:
    it = breaker()
    it.sent(0)
    it.refused(0, 0.0, None)
    it.sent(1)
    it.gone(0)
    assert it.room(5.0) == 0
    it.gone(1)
    assert (it.room(5.0), it.is_open) == (1, True)


def test_slots_grow_by_one_a_second_while_all_are_used() -> None:
    it = Concurrency(limit=2, least=1, most=4)
    for now in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0):
        it.note(it.limit, now)
    assert it.limit == 4


def test_slots_that_are_not_used_do_not_grow() -> None:
    it = Concurrency(limit=2, least=1, most=4)
    for now in range(10):
        it.note(1 + now % 2, float(now))
    assert it.limit == 2


def test_an_overload_halves_them_once() -> None:
    it = Concurrency(limit=16, least=3, most=32)
    for number in range(16):
        it.refused(number, 15, 0.0)
    assert it.limit == 8
    it.refused(16, 16, 1.0)
    it.refused(17, 17, 2.0)
    assert it.limit == 3
    it.note(3, 2.5)
    assert it.limit == 3, "a second from the refusal on"
    it.note(3, 3.0)
    assert it.limit == 4


def test_a_number_that_was_given_stays() -> None:
    it = Concurrency(limit=8, least=8, most=8)
    it.refused(0, 0, 0.0)
    for now in range(5):
        it.note(8, float(now))
    assert it.limit == 8
