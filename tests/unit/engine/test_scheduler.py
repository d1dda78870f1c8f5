"""The scheduler: budgets, order, slots, and that nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.base import Row, check_rows
from gpu_worker.engines.continuous.scheduler.scheduler import AGEING_STEPS, Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")


def sequence(id: str = "a", tokens: int = 10, rank: int = 1, queued_at: float = 0.0) -> SequenceState:
    return SequenceState(Row(id, REQUEST, priority=PRIORITIES[rank], queued_at=queued_at), prompt=[0] * tokens, limit=5)


def ids(chunks) -> list[str]:
    return [chunk.sequence.row.id for chunk in chunks]


def compute(scheduler: Scheduler) -> list[str]:
    """One step: do what the plan says, and name whose prompts it computed."""
    chunks = scheduler.plan_prefill().chunks
    for chunk in chunks:
        chunk.sequence.computed = chunk.stop
    return ids(chunks)


def test_prompts_share_the_budget_and_long_ones_are_chunked():
    scheduler = Scheduler(4, StepCost(prefill_tokens=16))
    for id, tokens in (("a", 10), ("b", 20), ("c", 3)):
        scheduler.add(sequence(id, tokens))
    first = scheduler.plan_prefill().chunks
    assert [(c.sequence.row.id, c.start, c.stop, c.gives) for c in first] == [
        ("a", 0, 10, 1),
        ("b", 0, 6, 0),
    ]
    for chunk in first:
        chunk.sequence.computed = chunk.stop
    assert [(c.sequence.row.id, c.start, c.stop) for c in scheduler.plan_prefill().chunks] == [
        ("b", 6, 20),
        ("c", 0, 2),
    ]


@pytest.mark.parametrize(("prefill_tokens", "budget"), [(31, 14), (9, 9)])
def test_prompts_take_less_beside_running_rows_but_fill_the_bucket(prefill_tokens, budget):
    scheduler = Scheduler(4, StepCost(prefill_tokens, beside=3, bucket=16))
    for id, tokens in (("a", 1), ("b", prefill_tokens - 1), ("c", 50)):
        scheduler.add(sequence(id, tokens))
    assert [chunk.stop - chunk.start for chunk in scheduler.plan().chunks] == [1, prefill_tokens - 1]
    compute(scheduler)
    assert [(c.sequence.row.id, c.stop - c.start) for c in scheduler.plan().chunks] == [
        ("a", 1),
        ("b", 1),
        ("c", budget),
    ]


def test_rank_goes_before_age_and_age_before_arrival():
    scheduler = Scheduler(4, StepCost(prefill_tokens=100))
    scheduler.add(sequence("low", rank=2, queued_at=1))
    scheduler.add(sequence("young", rank=1, queued_at=9))
    scheduler.add(sequence("old", rank=1, queued_at=5))
    scheduler.add(sequence("high", rank=0, queued_at=9))
    assert compute(scheduler) == ["high", "old", "young", "low"]


def test_a_row_takes_the_lowest_vacant_slot_when_its_turn_comes():
    scheduler = Scheduler(3, StepCost(prefill_tokens=10))
    rows = [sequence(id) for id in "abc"]
    for row in rows:
        scheduler.add(row)
    compute(scheduler)
    assert [row.slot for row in rows] == [0, None, None]
    compute(scheduler)
    scheduler.remove(rows[0])
    compute(scheduler)
    assert [row.slot for row in rows[1:]] == [1, 0]


def test_the_last_row_fills_a_slot_that_was_left():
    scheduler = Scheduler(4, StepCost(prefill_tokens=100))
    rows = [sequence(id) for id in "abcd"]
    for row in rows:
        scheduler.add(row)
    compute(scheduler)
    assert scheduler.plan_moves() == []
    scheduler.remove(rows[1])
    (move,) = scheduler.plan_moves()
    assert (move.sequence, move.source, move.target) == (rows[3], 3, 1)
    scheduler.moved(move)
    assert [row.slot for row in scheduler.running()] == [0, 1, 2]
    assert scheduler.plan_moves() == []
    scheduler.remove(rows[2])
    assert scheduler.plan_moves() == []


def test_a_slot_is_left_to_a_row_that_has_none_and_a_prompt_is_not_moved():
    scheduler = Scheduler(3, StepCost(prefill_tokens=10))
    first, long = sequence("first", 4), sequence("long", 30)
    for row in (first, long):
        scheduler.add(row)
    compute(scheduler)
    scheduler.remove(first)
    assert scheduler.plan_moves() == []
    while not long.is_prefilled:
        compute(scheduler)
    scheduler.add(sequence("new"))
    assert scheduler.plan_moves() == []
    compute(scheduler)
    assert [row.slot for row in scheduler.live] == [1, 0]


def test_running_rows_come_by_slot_and_only_once_prefilled():
    scheduler = Scheduler(2, StepCost(prefill_tokens=10))
    first, second = sequence("a", 15), sequence("b", 4)
    scheduler.add(first)
    scheduler.add(second)
    compute(scheduler)
    assert scheduler.running() == []
    compute(scheduler)
    assert scheduler.running() == [first, second]


def test_urgent_prompts_cannot_hold_back_a_patient_one():
    scheduler = Scheduler(4, StepCost(prefill_tokens=10))
    patient = sequence("patient", rank=2)
    scheduler.add(patient)
    for step in range(4 * AGEING_STEPS):
        urgent = sequence(f"urgent-{step}", rank=0, queued_at=-step)
        scheduler.add(urgent)
        if "patient" in compute(scheduler):
            break
        scheduler.remove(urgent)
    assert patient.is_prefilled


def test_rows_that_do_not_fit_are_refused():
    rows = [Row("a", REQUEST), Row("b", REQUEST)]
    check_rows(rows, free=2, live=set())
    with pytest.raises(ValueError, match="2 rows for 1 free"):
        check_rows(rows, free=1, live=set())
    with pytest.raises(ValueError, match="already"):
        check_rows(rows, free=2, live={"b"})
    with pytest.raises(ValueError, match="already"):
        check_rows([rows[0], rows[0]], free=2, live=set())


arrivals = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 2), st.floats(0, 100), st.integers(1, 8), st.integers(0, 20)),
    max_size=30,
)


@given(arrivals, st.integers(1, 6), st.integers(1, 40))
def test_never_above_slots_or_budget_and_everyone_is_served(rows, slots, budget):
    """Rows are (prompt tokens, rank, queued at, tokens to generate, step of arrival)."""
    scheduler = Scheduler(slots, StepCost(budget))
    todo = {f"{index}": row for index, row in enumerate(rows)}
    served, left = set(), {}
    for step in range(3000):
        ready = [id for id, row in todo.items() if row[4] <= step][: scheduler.free_slots()]
        for id in ready:
            tokens, rank, queued_at, generate, _ = todo.pop(id)
            scheduler.add(sequence(id, tokens, rank, queued_at))
            left[id] = generate
        for move in scheduler.plan_moves():
            assert move.target < move.source
            scheduler.moved(move)
        chunks = scheduler.plan_prefill().chunks
        assert sum(chunk.stop - chunk.start for chunk in chunks) <= budget
        assert all(chunk.stop > chunk.start for chunk in chunks)
        for chunk in chunks:
            chunk.sequence.computed = chunk.stop
        taken = [row.slot for row in scheduler.live if row.slot is not None]
        assert len(set(taken)) == len(taken) <= len(scheduler.live) <= slots
        assert all(0 <= slot < slots for slot in taken)
        for row in scheduler.running():
            left[row.row.id] -= 1
            if not left[row.row.id]:
                scheduler.remove(row)
                served.add(row.row.id)
        if not todo and not scheduler.live:
            break
    assert len(served) == len(rows)
    assert scheduler.free_slots() == slots
