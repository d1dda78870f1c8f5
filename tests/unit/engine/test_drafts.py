"""Drafts: what is guessed, how far, and which guesses stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.scheduler.drafts import MOST_DRAFTS, DraftBudget, Drafter, confirmed
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")


def drafter(*tokens: int) -> Drafter:
    made = Drafter()
    made.extend(tokens)
    return made


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ([1, 2, 3, 4, 9, 2, 3], [4, 9, 2]),
        ([5, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3], [8, 1, 2]),  # the last place counts
        ([1, 2, 3, 7, 5, 2, 3, 8, 0, 1, 2, 3], [7, 5, 2]),  # three alike go before two
        ([7, 7, 7], [7, 7, 7]),  # and round again
        ([1, 2, 1, 2], [1, 2, 1]),
        ([1, 2, 3], []),
        ([3], []),
        ([], []),
    ],
)
def test_a_guess_is_how_the_text_went_on_before(text, guess):
    assert drafter(*text).guess(3) == guess


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 40), st.integers(1, MOST_DRAFTS))
def test_it_does_not_matter_when_it_learns(text, early, count):
    late = drafter(*text)
    steady = drafter(*text[:early])
    for token in text[early:]:
        steady.guess(count)
        steady.extend([token])
    assert late.guess(count) == steady.guess(count)
    assert len(late.guess(count)) in (0, count)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.lists(st.integers(0, 3), max_size=5))
def test_what_stands_is_what_one_token_a_step_would_have_given(truth, guesses):
    """`truth` is what the model chooses as long as its own choices come before."""
    drafts = tuple(guesses[: len(truth) - 1])
    right = next((i for i, (a, b) in enumerate(zip(drafts, truth, strict=False)) if a != b), len(drafts))
    given_back = truth[: right + 1] + [99] * (len(drafts) - right)  # behind a wrong guess it may be anything
    assert confirmed(drafts, given_back) == truth[: right + 1]


def test_the_fewer_rows_and_the_better_it_goes_the_more_is_guessed():
    budget = DraftBudget(free_tokens=6, double_tokens=18)
    assert [budget.each(rows, room=100) for rows in (0, 1, 2, 6, 48)] == [0, 5, 2, 1, 0]
    for _ in range(100):
        budget.note(True)
    assert [budget.each(rows, room=100) for rows in (2, 6)] == [MOST_DRAFTS, MOST_DRAFTS]
    for _ in range(60):
        budget.note(False)
    assert [budget.each(rows, room=100) for rows in (1, 2, 3, 4, 5)] == [5, 2, 1, 0, 0]
    assert DraftBudget(0, 1).each(1, room=100) == 0
    assert DraftBudget(free_tokens=6, double_tokens=18).each(1, room=2) == 2


def test_all_running_rows_get_as_many_or_none():
    scheduler = Scheduler(4, StepCost(prefill_tokens=10, free_tokens=6, double_tokens=18))
    known, fresh = (SequenceState(Row(id, REQUEST), prompt=[0], limit=9, slot=slot) for slot, id in enumerate("ab"))
    for row in (known, fresh):
        row.computed, row.last = 1, 4
        scheduler.add(row)
    assert [chunk.drafts for chunk in scheduler.plan().chunks] == [(), ()]
    known.drafter.extend([4, 4, 4])
    chunks = scheduler.plan().chunks
    assert [(chunk.tokens, chunk.start, chunk.stop, chunk.gives) for chunk in chunks] == [([4, 4, 4], 1, 4, 3)] * 2
    known.generated = 8
    assert [chunk.drafts for chunk in scheduler.plan().chunks] == [(4,), (4,)]


def test_nobody_guesses_while_a_prompt_is_computed():
    scheduler = Scheduler(4, StepCost(prefill_tokens=10, free_tokens=6, double_tokens=18))
    row = SequenceState(Row("a", REQUEST), prompt=[0], limit=9, slot=0, computed=1)
    row.drafter.extend([0, 0, 0, 0])
    scheduler.add(row)
    scheduler.add(SequenceState(Row("new", REQUEST), prompt=[0] * 30, limit=9))
    assert [len(chunk.drafts) for chunk in scheduler.plan().chunks] == [0, 0]
