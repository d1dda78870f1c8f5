"""Whose line is next, how many jobs are added, how urgent they are, and when what has ended is written."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.batches.fairness import FairOrder, Occupancy
from dispatcher.batches.pace import (
    LAST_WRITE_SECONDS,
    LEAST_AHEAD,
    MOST_BYTES,
    MOST_LINES,
    Queue,
    is_due,
    priority,
    room,
)


def served(occupancies: list[Occupancy], room: int, wants: dict[str, int]) -> Counter[str]:
    """What each batch gets of so much room, one job at a time."""
    order, left, got = FairOrder(occupancies), dict(wants), Counter[str]()
    for batch in order:
        if not room or not left[batch]:
            order.drop()
            continue
        order.served(1)
        left[batch] -= 1
        got[batch] += 1
        room -= 1
    return got


def test_room_is_shared_between_keys_first() -> None:
    many = [Occupancy(f"a{number}", "alice", 0) for number in range(9)]
    got = served([*many, Occupancy("b", "bob", 0)], 100, dict.fromkeys([one.batch for one in many] + ["b"], 1000))
    assert got["b"] == 50
    assert sum(got.values()) == 100


def test_who_has_much_under_way_waits_for_who_has_little() -> None:
    got = served([Occupancy("big", "a", 500), Occupancy("small", "b", 0)], 100, {"big": 1000, "small": 1000})
    assert got == {"small": 100}


def test_what_one_does_not_want_is_the_others() -> None:
    assert served([Occupancy("x", "a", 0), Occupancy("y", "b", 0)], 10, {"x": 2, "y": 100}) == {"x": 2, "y": 8}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 60)), min_size=1, max_size=8),
    st.integers(0, 200),
)
def test_nothing_is_lost_and_no_key_is_behind_by_more_than_a_job(
    batches: list[tuple[str, int, int]], room: int
) -> None:
    occupancies = [Occupancy(str(place), owner, jobs) for place, (owner, jobs, _) in enumerate(batches)]
    wants = {str(place): want for place, (_, _, want) in enumerate(batches)}
    got = served(occupancies, room, wants)
    assert sum(got.values()) == min(room, sum(wants.values()))
    for owner in {one.owner for one in occupancies}:
        own = [one for one in occupancies if one.owner == owner]
        unserved = any(got[one.batch] < wants[one.batch] for one in own)
        total = sum(one.jobs + got[one.batch] for one in own)
        for other in {one.owner for one in occupancies} - {owner}:
            theirs = [one for one in occupancies if one.owner == other]
            if unserved and sum(got[one.batch] for one in theirs):
                assert sum(one.jobs + got[one.batch] for one in theirs) <= total + 1


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        (Queue(0, 0, 0), LEAST_AHEAD),
        (Queue(100, 100, 0), LEAST_AHEAD - 100),
        (Queue(0, 0, 1000), 5000),
        (Queue(4990, 0, 2000), 10),  # others fill the queue: what is left of the batches' share
        (Queue(9000, 0, 1000), 0),
        (Queue(600, 600, 100), 0),
    ],
)
def test_room(queue: Queue, expected: int) -> None:
    assert room(queue, 10_000, 0.5) == expected


@pytest.mark.parametrize(
    ("now", "left", "rate", "expected"),
    [
        (10, 1000, 0, ("low", "slack")),
        (10, 1000, 100, ("low", "slack")),
        (900, 5, 100, ("default", "window_ends")),
        (500, 1000, 1, ("default", "behind")),
        (2000, 1, 100, ("default", "window_ends")),
    ],
)
def test_priority_in_a_window_of_1000_seconds(now: float, left: int, rate: float, expected: tuple[str, str]) -> None:
    assert priority(now, 0, 1000, left, rate) == expected


def test_what_has_ended_is_written_less_often_the_longer_a_batch_runs() -> None:
    assert is_due(0, 0, MOST_LINES, 0)
    assert is_due(0, 0, 1, MOST_BYTES)
    assert not is_due(10, 0.4, 1, 1)
    assert is_due(10, 0.5, 1, 1)
    assert not is_due(1000, 9, 1, 1)
    assert is_due(1000, 10, 1, 1)
    assert is_due(10**6, LAST_WRITE_SECONDS, 1, 1)
    assert not is_due(10**6, 10**6, 0, 0)
