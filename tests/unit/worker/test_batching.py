"""How many jobs to claim, and when a batch starts."""

from __future__ import annotations

import pytest

from gpu_worker.batching import Batching


@pytest.mark.parametrize(
    ("mode", "held", "gathering", "room"),
    [
        ("continuous", 0, True, 4), ("continuous", 3, False, 1), ("continuous", 4, False, 0),
        ("static", 0, True, 4), ("static", 1, True, 3), ("static", 1, False, 0),
        ("off", 0, True, 1), ("off", 1, False, 0), ("off", 1, True, 0),
    ],
)  # fmt: skip
def test_room(mode: str, held: int, gathering: bool, room: int) -> None:
    assert Batching(mode, 4).room(held, gathering) == room


def test_a_batch_starts_when_it_is_full_or_has_waited() -> None:
    batching = Batching("static", 4, max_wait_seconds=0.5)
    assert batching.starts(4, 0.0)
    assert batching.starts(1, 0.5)
    assert not batching.starts(3, 0.4)
