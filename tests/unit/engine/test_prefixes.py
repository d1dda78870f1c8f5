"""A prompt that begins like another one: what is copied, from where, and who had better wait."""

from __future__ import annotations

import pytest

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.scheduler.prefixes import LEAST_TOKENS, Copy, Prefixes, shared
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")
SYSTEM = list(range(100, 140))


def sequence(id: str, prompt: list[int], rank: int = 1) -> SequenceState:
    made = SequenceState(Row(id, REQUEST, priority=PRIORITIES[rank]), prompt, limit=9)
    made.drafter.extend(prompt)
    return made


def step(scheduler: Scheduler) -> list[tuple[str, int, int]]:
    """Plan and compute; the plan as (row, start, stop)."""
    chunks = scheduler.plan().chunks
    for chunk in chunks:
        chunk.sequence.computed = chunk.stop
    return [(chunk.sequence.row.id, chunk.start, chunk.stop) for chunk in chunks]


@pytest.mark.parametrize(
    ("prompt", "computed", "found"),
    [
        ([*SYSTEM, 1, 2], 41, 40),
        ([*SYSTEM, 1, 2], 30, 30),
        ([*SYSTEM[:20], 1, 2], 41, 20),
        (SYSTEM, 41, 39),  # the last one is always computed
        (SYSTEM[: LEAST_TOKENS - 1] + [1] * 20, 41, 0),
        ([1, *SYSTEM], 41, 0),
        (SYSTEM[:8], 41, 0),
        ([*SYSTEM, 1, 2], LEAST_TOKENS - 1, 0),
    ],
)
def test_what_two_texts_have_in_common(prompt, computed, found):
    assert shared(prompt, [*SYSTEM, 9, 9], computed) == found


def test_a_row_copies_from_one_that_runs_and_from_one_that_has_left():
    scheduler = Scheduler(4, StepCost(prefill_tokens=100))
    first = sequence("first", [*SYSTEM, 1])
    scheduler.add(first)
    assert step(scheduler) == [("first", 0, 41)]
    scheduler.add(sequence("second", [*SYSTEM, 2, 2]))
    plan = scheduler.plan()
    assert plan.copies == [Copy(source=0, target=1, columns=40)]
    assert [(c.sequence.row.id, c.start, c.stop) for c in plan.chunks] == [("first", 41, 42), ("second", 40, 42)]
    assert [chunk.sequence.reused for chunk in plan.chunks] == [0, 40]
    for chunk in plan.chunks:
        chunk.sequence.computed = chunk.stop
    scheduler.remove(first)
    # The lowest vacant slot is the one that still holds it: nothing is copied.
    third = sequence("third", [*SYSTEM, 3])
    scheduler.add(third)
    plan = scheduler.plan()
    assert [(c.sequence.row.id, c.start, c.stop) for c in plan.chunks][-1] == ("third", 40, 41)
    assert (third.slot, plan.copies) == (0, [])


def test_generated_tokens_are_reused_too_by_the_next_turn_of_a_conversation():
    scheduler = Scheduler(2, StepCost(prefill_tokens=100))
    row = sequence("turn 1", [*SYSTEM, 1])
    scheduler.add(row)
    step(scheduler)
    for token in (7, 8):
        row.last = token
        row.drafter.extend([token])
        step(scheduler)
    scheduler.remove(row)
    scheduler.add(sequence("turn 2", [*SYSTEM, 1, 7, 8, 5, 5]))
    assert step(scheduler) == [("turn 2", 43, 45)]


def test_rows_that_share_most_of_a_prompt_wait_for_the_first_of_them():
    scheduler = Scheduler(4, StepCost(prefill_tokens=30))
    for id in ("a", "b", "c"):
        scheduler.add(sequence(id, [*SYSTEM, ord(id)]))
    other = sequence("other", [5] * 10)
    scheduler.add(other)
    assert step(scheduler) == [("a", 0, 30)]
    # b and c wait on: what a computes now is what they lack; who shares nothing goes ahead.
    assert step(scheduler) == [("a", 30, 41), ("other", 0, 10)]
    assert step(scheduler)[-2:] == [("b", 40, 41), ("c", 40, 41)]


def test_a_row_that_lacks_little_does_not_wait():
    scheduler = Scheduler(4, StepCost(prefill_tokens=200))
    scheduler.add(sequence("a", [*SYSTEM, 1]))
    scheduler.add(sequence("long", SYSTEM + [5] * 100))
    assert step(scheduler) == [("a", 0, 41), ("long", 0, 140)]


def test_what_was_overwritten_or_is_unsound_is_not_copied():
    scheduler = Scheduler(2, StepCost(prefill_tokens=200))
    gone = sequence("gone", [*SYSTEM, 1])
    scheduler.add(gone)
    step(scheduler)
    scheduler.remove(gone)
    scheduler.prefixes.forget(0)
    scheduler.add(sequence("next", [*SYSTEM, 2]))
    assert step(scheduler) == [("next", 0, 41)]


def test_a_row_that_moves_takes_what_it_holds_along():
    scheduler = Scheduler(3, StepCost(prefill_tokens=200))
    low, high = sequence("low", [5] * 20), sequence("high", [*SYSTEM, 1])
    scheduler.add(low)
    scheduler.add(high)
    step(scheduler)
    scheduler.remove(low)
    (move,) = scheduler.plan_moves()
    scheduler.moved(move)
    assert scheduler.prefixes.best([*SYSTEM, 2]) == (0, 40)


def test_reuse_can_be_turned_off():
    prefixes = Prefixes(reuse=False)
    row = sequence("a", SYSTEM)
    row.computed = 40
    prefixes.hold(0, row)
    assert prefixes.best([*SYSTEM, 1]) == (-1, 0)
    assert prefixes.coming([*SYSTEM, 1], []) == 0
