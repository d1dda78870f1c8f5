"""Who gives way to whom: pure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.preemption import NOTHING, REASONS, Need, Preemption, RunningRow, Victim
from promptq.contract.queues import PRIORITIES, Priority

HIGH, ALL, OFF = Preemption("high"), Preemption("all"), Preemption("off")


def rows(*priorities: Priority, generated: int = 0) -> list[RunningRow]:
    return [RunningRow(f"{priority}{n}", priority, generated) for n, priority in enumerate(priorities)]


def test_the_least_urgent_row_with_the_least_progress_gives_way() -> None:
    running = [
        RunningRow("default", "default", 1), RunningRow("far", "low", 90), RunningRow("begun", "low", 2),
        RunningRow("high", "high", 0),
    ]  # fmt: skip
    assert HIGH.victims(["high"], running, 0) == [Victim("begun", "high_over_low")]
    three = HIGH.victims(["high"] * 4, running, 0)
    assert [(victim.id, victim.reason) for victim in three] == [
        ("begun", "high_over_low"), ("far", "high_over_low"), ("default", "high_over_default"),
    ]  # fmt: skip


def test_free_slots_are_taken_first() -> None:
    assert HIGH.victims(["high", "high"], rows("low", "low"), 2) == []
    assert len(HIGH.victims(["high", "low", "high"], rows("low", "low", "low"), 1)) == 1


@pytest.mark.parametrize("rules", [OFF, HIGH, ALL])
@pytest.mark.parametrize(("urgent", "patient"), list(itertools.product(PRIORITIES, PRIORITIES)))
def test_the_mode_says_who_gives_way_to_whom(rules: Preemption, urgent: Priority, patient: Priority) -> None:
    reason = f"{urgent}_over_{patient}"
    gives_way = reason in {OFF: (), HIGH: ("high_over_default", "high_over_low"), ALL: REASONS}[rules]
    assert [victim.reason for victim in rules.victims([urgent], rows(patient), 0)] == [reason] * gives_way
    assert rules.may_need(urgent) or not gives_way


@pytest.mark.parametrize(
    "row", [RunningRow("often", "low", 0, preemptions=3), RunningRow("suspect", "low", 0, alone=True)]
)
def test_a_row_that_gave_way_too_often_and_a_suspect_stay(row: RunningRow) -> None:
    assert HIGH.victims(["high"], [row], 0) == []
    assert HIGH.need([row], 0).count == 0


def test_no_more_is_claimed_than_finds_a_row_that_gives_way() -> None:
    assert HIGH.need(rows("low", "default", "high"), 0) == Need(2, "default")
    assert HIGH.need(rows("low", "default", "high"), 1) == Need(1, "default")
    assert ALL.need(rows("low", "default", "default"), 0) == Need(1, "low")
    assert ALL.need(rows("high", "default", "default"), 0) == Need(2, "default")
    assert HIGH.need(rows("high"), 0) == OFF.need(rows("low"), 0) == NOTHING


@given(
    st.sampled_from([HIGH, ALL]),
    st.lists(st.sampled_from(PRIORITIES), max_size=8),
    st.data(),
)
def test_whatever_may_be_claimed_finds_its_victim(
    rules: Preemption, priorities: list[Priority], data: st.DataObject
) -> None:
    running = rows(*priorities)
    need = rules.need(running, 0)
    above = PRIORITIES[: PRIORITIES.index(need.above)] if need.above else ()
    urgent = data.draw(st.lists(st.sampled_from(above), max_size=need.count)) if above else []
    victims = rules.victims(urgent, running, 0)
    assert len(victims) == len(urgent)
    assert len({victim.id for victim in victims}) == len(victims)
    assert {victim.reason for victim in victims} <= set(REASONS)
