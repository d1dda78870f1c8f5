"""Which step may follow one whose tokens nobody knows yet."""

from __future__ import annotations

import pytest

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.runners.graph.buckets import BUCKETS, bucket_for
from gpu_worker.engines.continuous.scheduler.drafts import FIRST_RIGHT, DraftBudget
from gpu_worker.engines.continuous.scheduler.following import following
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.continuous.scheduler.spans import Spans
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.request import GenerateRequest


def running(slot: int = 0, **fields) -> SequenceState:
    """A row whose prompt of two tokens is computed, and its first token chosen."""
    request = GenerateRequest(prompt="x", **fields)
    return SequenceState(Row(str(slot), request), [1, 2], limit=9, slot=slot, computed=2, generated=1)


def step_of(*rows: SequenceState) -> list[Chunk]:
    return [Chunk(row, row.computed, row.computed + 1) for row in rows]


def places(chunks: list[Chunk]) -> list[tuple[int, int, int]]:
    return [(chunk.slot, chunk.start, chunk.stop) for chunk in chunks]


def test_each_row_goes_on_with_its_next_token_by_slot():
    rows = running(2), running(0)
    assert places(following(step_of(*rows), rows)) == [(0, 3, 4), (2, 3, 4)]


def test_a_row_whose_prompt_ends_in_the_step_goes_on_too():
    row = running()
    row.computed = row.generated = 0
    assert places(following([Chunk(row, 0, 2)], [row])) == [(0, 2, 3)]
    assert following([Chunk(row, 0, 1)], [row]) == []


def test_a_row_that_left_and_one_whose_last_token_it_is_are_left_out():
    stays, left, ends = running(0), running(1), running(2)
    ends.generated = ends.limit - 1
    assert places(following(step_of(stays, left, ends), [stays, ends])) == [(0, 3, 4)]
    assert following(step_of(left, ends), [ends]) == []


@pytest.mark.parametrize(
    "row",
    [running(1, temperature=0.5), running(1, logprobs=True), running(1)],
    ids=["drawn", "logprobs", "without a chunk"],
)
def test_nothing_follows_where_a_row_needs_its_token_on_the_host(row):
    other = running(0)
    chunks = step_of(other, row) if row.row.request.temperature or row.row.request.logprobs else step_of(other)
    assert following(chunks, [other, row]) == []


@pytest.mark.parametrize("name", ["processors", "counts", "bias", "grammar"])
def test_what_edits_a_rows_logits_makes_it_no_plain_row(name):
    row = running()
    assert row.is_plain
    setattr(row, name, object())
    assert not row.is_plain


def test_nothing_follows_a_guess():
    row = running()
    assert following([Chunk(row, 2, 5, (7, 7))], [row]) == []


def test_guesses_must_gain_more_than_overlapping_steps():
    budget = DraftBudget(free_tokens=6, double_tokens=18)
    assert budget.each(1, room=8) == budget.each(1, room=8, least_gain=1.9) == 5
    assert budget.each(1, room=8, least_gain=2.0) == 0
    for _ in range(60):
        budget.note(False)
    assert (budget.each(1, room=8), budget.each(1, room=8, least_gain=1.3)) == (5, 0)
    for _ in range(5000):
        budget.forget()
    assert budget.right == pytest.approx(FIRST_RIGHT, abs=0.01)


def test_rows_that_cannot_overlap_guess_for_less():
    scheduler = Scheduler(4, StepCost(prefill_tokens=10, free_tokens=6, double_tokens=18, overlap_gain=2.0))
    plain, drawn = running(0), running(1, temperature=1.0)
    assert not scheduler.would_guess(step_of(plain))
    assert scheduler.would_guess(step_of(drawn))


def test_having_nothing_to_guess_counts_as_wrong_where_steps_could_overlap():
    scheduler = Scheduler(4, StepCost(prefill_tokens=10, free_tokens=6, double_tokens=18, overlap_gain=1.3))
    scheduler.add(running())
    scheduler.plan()
    assert scheduler.drafts.right < FIRST_RIGHT


def test_a_row_that_has_no_room_before_others_leave_keeps_no_step_from_following():
    running_row, waiting = running(0), SequenceState(Row("w", GenerateRequest(prompt="x")), [1] * 40, limit=9)
    scheduler = Scheduler(2, StepCost(prefill_tokens=10), room=Spans(48, 48))
    for row in (running_row, waiting):
        scheduler.add(row)
    running_row.slot = scheduler.room.take(running_row.most_tokens)
    scheduler.plan()
    assert waiting.is_crowded_out
    assert places(following(step_of(running_row), scheduler.planned_for)) == [(0, 3, 4)]
    scheduler.remove(running_row)
    assert scheduler.planned_for == {waiting}


def test_a_step_fits_the_smallest_bucket_that_holds_it():
    for tokens in range(1, BUCKETS[-1] + 1):
        bucket = bucket_for(tokens)
        assert bucket in BUCKETS
        assert bucket // 2 < tokens <= bucket
    assert bucket_for(BUCKETS[-1] + 1) is None
