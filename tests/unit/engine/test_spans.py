"""Spans of one pool: nobody's memory overlaps another's, what moves arrives whole, and no row waits for ever."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.scheduler.room import Move
from gpu_worker.engines.continuous.scheduler.scheduler import AGEING_STEPS, Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.scheduler.spans import MOVED_TOKENS, SPAN_BUCKET, Spans
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")
COST = StepCost(prefill_tokens=64, free_tokens=8, double_tokens=16)


def sequence(id: str = "a", prompt: list[int] | None = None, limit: int = 6, rank: int = 1) -> SequenceState:
    made = SequenceState(Row(id, REQUEST, priority=PRIORITIES[rank]), prompt or [0] * 10, limit)
    made.drafter.extend(made.prompt)
    return made


def placed(spans: Spans, *sizes: int) -> list[SequenceState]:
    """Rows of so many tokens, computed as far as they go."""
    rows = []
    for size in sizes:
        row = sequence(prompt=[0] * (size - 1), limit=1)
        row.slot, row.computed = spans.take(size), size - 1
        rows.append(row)
    return rows


def test_a_row_takes_the_smallest_gap_that_is_large_enough():
    spans = Spans(16 * 20, longest=160)
    rows = placed(spans, 32, 16, 64, 16, 48)
    assert [row.slot for row in rows] == [0, 32, 48, 112, 128]
    for row in (rows[0], rows[2]):
        spans.give_back(row.slot)
    assert spans.reserved == 80
    assert [spans.take(17), spans.take(17), spans.take(16)] == [0, 48, 80]
    assert spans.take(16 * 10) is None
    assert spans.take(16 * 9) == 176


def test_a_row_goes_where_its_beginning_lies_if_there_is_room():
    spans = Spans(16 * 10, longest=160)
    rows = placed(spans, 32, 32, 32)
    spans.give_back(rows[1].slot)
    assert spans.take(20, near=32) == 32
    spans.give_back(32)
    assert spans.take(40, near=32) == 96, "the row behind it begins too early"


def test_rows_move_down_where_the_fewest_tokens_move():
    spans = Spans(16 * 12, longest=160)
    rows = placed(spans, 16, 64, 32, 16, 16, 48)
    for row in (rows[0], rows[2], rows[4]):
        spans.give_back(row.slot)
    live = [rows[1], rows[3], rows[5]]
    assert spans.moves(live, 32) == [], "there is a gap of 32"
    assert spans.moves(live, 65) == [], "16 + 32 + 16 is all there is"
    (move,) = spans.moves(live, 48)
    assert move == Move(rows[3], 112, 80)
    spans.moved(move)
    rows[3].slot = 80
    assert spans.take(48) == 96


def test_a_row_whose_prompt_is_not_computed_stays_where_it_is():
    spans = Spans(16 * 6, longest=96)
    rows = placed(spans, 16, 32, 16, 32)
    for row in (rows[0], rows[2]):
        spans.give_back(row.slot)
    live = [rows[1], rows[3]]
    assert spans.could_fit(live, 32)
    rows[1].computed -= 1
    assert not spans.could_fit(live, 32)
    assert spans.moves(live, 32) == []


def test_what_moves_before_one_step_is_bounded():
    size = MOVED_TOKENS // 2 + SPAN_BUCKET
    spans = Spans(4 * size + 256, longest=MOVED_TOKENS)
    rows = placed(spans, 64, size, size, size, size, 64, 128)
    for row in (rows[0], rows[5]):
        spans.give_back(row.slot)
    live, steps = [*rows[1:5], rows[6]], 0
    while moves := spans.moves(live, 128):
        (move,) = moves
        spans.moved(move)
        move.sequence.slot = move.target
        steps += 1
    assert steps == 4
    assert spans.take(128) is not None


def test_a_worker_gets_no_more_rows_than_are_likely_to_fit():
    scheduler = Scheduler(64, COST, room=Spans(16 * 40, longest=160))
    assert scheduler.free_slots() == 4, "rows of unknown length may be as long as can be"
    for index in range(12):
        scheduler.add(sequence(str(index)))
    assert scheduler.free_slots() > 4, "16 tokens each, and known to be short"
    long = [sequence(f"long {index}", [0] * 90, limit=70) for index in range(4)]
    for row in long:
        scheduler.add(row)
    for _ in range(12):
        compute(scheduler)
    assert [row.slot is None for row in long] == [False] * 2 + [True] * 2
    assert scheduler.free_slots() == 0, "two wait for room"
    for row in long[2:]:
        row.end(FinishReason.CANCELLED)
    assert scheduler.free_slots() >= 1


def compute(scheduler: Scheduler) -> list[str]:
    """One step: move, compute what is planned, and name whose prompts it computed."""
    for move in scheduler.plan_moves():
        scheduler.moved(move)
    chunks = scheduler.plan().chunks
    for chunk in chunks:
        chunk.sequence.computed = chunk.stop
    return [chunk.sequence.row.id for chunk in chunks if not chunk.decodes]


@pytest.mark.parametrize("rank", [0, 1])
def test_many_short_rows_do_not_keep_a_long_one_out(rank):
    """Two short ones leave in turn, and another one comes for each: half of the pool is never free at once."""
    scheduler = Scheduler(8, COST, room=Spans(16 * 4, longest=64))
    short = [sequence(f"short {index}", rank=rank) for index in range(4)]
    for row in short:
        scheduler.add(row)
    compute(scheduler)
    long = sequence("long", [0] * 40, limit=8)
    scheduler.add(long)
    for step in range(4 * AGEING_STEPS):
        if len(short) > 3:
            scheduler.remove(short.pop(0))
        short.append(sequence(f"next {step}", rank=rank))
        scheduler.add(short[-1])
        compute(scheduler)
        if long.slot is not None:
            break
        short = [row for row in short if row in scheduler.live]
    assert long.slot is not None
    assert step >= AGEING_STEPS // 2, "it was passed for a while"


class Memory:
    """A pool whose vectors say what was computed there: of a token, all tokens up to it."""

    def __init__(self, tokens: int) -> None:
        self.cells: list[tuple[int, ...]] = [()] * tokens

    def copy(self, source: int, target: int, columns: int) -> None:
        self.cells[target : target + columns] = self.cells[source : source + columns]

    def compute(self, row: SequenceState, start: int, stop: int) -> None:
        """Attend to what lies before, and write."""
        assert row.slot is not None
        for column in range(start, stop):
            at = row.slot + column
            assert column == 0 or self.cells[at - 1] == tuple(row.text[:column]), (row.row.id, column)
            self.cells[at] = tuple(row.text[: column + 1])


arrivals = st.lists(
    st.tuples(
        st.integers(1, 70),  # prompt tokens
        st.integers(0, 2),  # which text they are the beginning of
        st.integers(0, 2),  # rank
        st.integers(1, 40),  # the most tokens to generate
        st.integers(1, 40),  # and those that it does generate
        st.integers(0, 30),  # step of arrival
    ),
    max_size=24,
)


@settings(deadline=None, max_examples=60)
@given(arrivals, st.integers(1, 6), st.integers(8, 20), st.integers(3, 60))
def test_rows_keep_what_is_theirs_and_everyone_is_served(rows, slots, pool, budget):
    """Keys and values are where a row reads them, however rows come, go, move and copy; no chunk leaves its span."""
    spans = Spans(pool * SPAN_BUCKET, longest=8 * SPAN_BUCKET)
    cost = StepCost(budget, free_tokens=12, double_tokens=24)
    scheduler, memory = Scheduler(slots, cost, room=spans), Memory(pool * SPAN_BUCKET)
    todo = {str(index): row for index, row in enumerate(rows)}
    served, left = set(), {}
    for step in range(5000):
        for id in [id for id, row in todo.items() if row[5] <= step][: scheduler.free_slots()]:
            tokens, text, rank, limit, generate, _ = todo.pop(id)
            row = sequence(id, [text] * tokens, limit, rank)
            scheduler.add(row)
            left[id] = min(limit, generate)
        for move in scheduler.plan_moves():
            assert move.sequence.is_prefilled
            memory.copy(move.source, move.target, move.sequence.computed)
            scheduler.moved(move)
        plan = scheduler.plan()
        for copy in plan.copies:
            memory.copy(copy.source, copy.target, copy.columns)
        taken = sorted((row.slot, row.slot + row.most_tokens) for row in scheduler.live if row.slot is not None)
        assert all(stop <= start for (_, stop), (start, _) in pairwise(taken))
        assert scheduler.kv_tokens.used <= spans.reserved <= spans.tokens
        for chunk in plan.chunks:
            row = chunk.sequence
            assert chunk.stop <= row.most_tokens
            row.computed = chunk.stop - len(chunk.drafts)  # all of them wrong
            memory.compute(row, chunk.start, row.computed)
            if row.is_prefilled:
                row.append(int(row.row.id) + 10)
                left[row.row.id] -= 1
                if not left[row.row.id]:
                    scheduler.remove(row)
                    served.add(row.row.id)
        if not todo and not scheduler.live:
            break
    assert len(served) == len(rows)
    assert spans.reserved == 0
