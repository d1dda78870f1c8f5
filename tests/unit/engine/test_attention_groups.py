"""Segments: every token is covered once, in order, and rows share a call only where that pays."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.runners.attention_groups import (
    CALL_COLUMNS,
    READ_BUCKET,
    AttentionGroup,
    attention_groups,
)
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")


def chunk(slot: int, start: int, stop: int) -> Chunk:
    return Chunk(SequenceState(Row("a", REQUEST), prompt=[0] * stop, limit=1, slot=slot), start, stop)


def running(*rows: tuple[int, int]) -> list[Chunk]:
    """Rows of (slot, length with the new token)."""
    return [chunk(slot, length - 1, length) for slot, length in rows]


def test_neighbours_of_like_length_share_a_call():
    assert attention_groups(running((2, 10), (3, 40), (4, 20))) == [AttentionGroup(2, 3, 1, 48, [0, 1, 2])]


def test_a_vacant_slot_is_read_in_vain_where_that_is_cheaper_than_a_call():
    assert attention_groups(running((0, 10), (2, 10))) == [AttentionGroup(0, 3, 1, 16, [0, 2])]
    far = CALL_COLUMNS // 16 + 2
    assert attention_groups(running((0, 10), (far, 10))) == [
        AttentionGroup(0, 1, 1, 16, [0]),
        AttentionGroup(far, 1, 1, 16, [0]),
    ]


def test_a_long_row_does_not_make_many_short_ones_read_as_far():
    short = [(slot, 16) for slot in range(8)]
    assert attention_groups(running(*short, (8, 512))) == [
        AttentionGroup(0, 8, 1, 16, [*range(8)]),
        AttentionGroup(8, 1, 1, 512, [0]),
    ]
    assert attention_groups(running((0, 512), (1, 16), (2, 500))) == [
        AttentionGroup(0, 1, 1, 512, [0]),
        AttentionGroup(1, 1, 1, 16, [0]),
        AttentionGroup(2, 1, 1, 512, [0]),
    ]


def test_a_prompt_has_a_segment_of_its_own():
    chunks = [*running((0, 30)), chunk(1, 0, 20), chunk(2, 40, 50)]
    assert attention_groups(chunks) == [
        AttentionGroup(0, 1, 1, 32, [0]),
        AttentionGroup(1, 1, 20, 32, [0]),
        AttentionGroup(2, 1, 10, 64, [0]),
    ]


lengths = st.dictionaries(st.integers(0, 40), st.integers(1, 3000))


@given(lengths)
def test_every_row_is_read_far_enough_and_sharing_pays(rows):
    """Rows by slot: each is covered once, and reading costs no more than a call for each row would."""
    found = attention_groups(running(*sorted(rows.items())))
    covered = [(group.first + offset, group.width) for group in found for offset in group.live]
    assert [slot for slot, _ in covered] == sorted(rows)
    assert all(width >= rows[slot] for slot, width in covered)
    cost = sum(group.rows * group.width + CALL_COLUMNS for group in found)
    assert cost <= sum(round_up(length, READ_BUCKET) + CALL_COLUMNS for length in rows.values())
