"""Segments: every token is covered once, in order, and rows share a call only where that pays."""

from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engine.base import Row
from gpu_worker.engine.segments import CALL_COLUMNS, READ_BUCKET, Segment, round_up, segments
from gpu_worker.engine.sequence import Chunk, Sequence
from promptq.request import GenerateRequest

REQUEST = GenerateRequest(prompt="x")


def chunk(slot: int, start: int, stop: int) -> Chunk:
    return Chunk(Sequence(Row("a", REQUEST), prompt=[0] * stop, limit=1, slot=slot), start, stop)


def running(*rows: tuple[int, int]) -> list[Chunk]:
    """Rows of (slot, length with the new token)."""
    return [chunk(slot, length - 1, length) for slot, length in rows]


def test_neighbours_of_like_length_share_a_call():
    assert segments(running((2, 10), (3, 40), (4, 20))) == [Segment(2, 3, 1, 48, [0, 1, 2])]


def test_a_vacant_slot_is_read_in_vain_where_that_is_cheaper_than_a_call():
    assert segments(running((0, 10), (2, 10))) == [Segment(0, 3, 1, 16, [0, 2])]
    far = CALL_COLUMNS // 16 + 2
    assert segments(running((0, 10), (far, 10))) == [Segment(0, 1, 1, 16, [0]), Segment(far, 1, 1, 16, [0])]


def test_a_long_row_does_not_make_many_short_ones_read_as_far():
    short = [(slot, 16) for slot in range(8)]
    assert segments(running(*short, (8, 512))) == [Segment(0, 8, 1, 16, [*range(8)]), Segment(8, 1, 1, 512, [0])]
    assert segments(running((0, 512), (1, 16), (2, 500))) == [
        Segment(0, 1, 1, 512, [0]),
        Segment(1, 1, 1, 16, [0]),
        Segment(2, 1, 1, 512, [0]),
    ]


def test_a_prompt_has_a_segment_of_its_own():
    chunks = [*running((0, 30)), chunk(1, 0, 20), chunk(2, 40, 50)]
    assert segments(chunks) == [Segment(0, 1, 1, 32, [0]), Segment(1, 1, 20, 32, [0]), Segment(2, 1, 10, 64, [0])]


lengths = st.dictionaries(st.integers(0, 40), st.integers(1, 3000))


@given(lengths)
def test_every_row_is_read_far_enough_and_sharing_pays(rows):
    """Rows by slot: each is covered once, and reading costs no more than a call for each row would."""
    found = segments(running(*sorted(rows.items())))
    covered = [(segment.first + offset, segment.width) for segment in found for offset in segment.live]
    assert [slot for slot, _ in covered] == sorted(rows)
    assert all(width >= rows[slot] for slot, width in covered)
    cost = sum(segment.rows * segment.width + CALL_COLUMNS for segment in found)
    assert cost <= sum(round_up(length, READ_BUCKET) + CALL_COLUMNS for length in rows.values())
