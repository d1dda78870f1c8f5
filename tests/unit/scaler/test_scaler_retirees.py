"""Which workers go when there are too many."""

from __future__ import annotations

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.policy import choose_retirees


def workers(**states: str) -> list[WorkerRecord]:
    return [WorkerRecord(name, state, busy_slots=5 if state == "busy" else 0) for name, state in states.items()]


@pytest.mark.parametrize(
    ("count", "names"),
    [(0, ""), (-1, ""), (1, "c"), (2, "cb"), (3, "cba"), (9, "cba")],
)
def test_starting_goes_before_idle_before_busy_and_draining_never(count: int, names: str) -> None:
    assert choose_retirees(workers(a="busy", b="idle", c="starting", d="draining"), count) == list(names)


def test_the_least_busy_and_then_the_youngest_goes_first() -> None:
    workers = [
        WorkerRecord("full", "busy", busy_slots=8, started_at=3.0),
        WorkerRecord("old", "busy", busy_slots=1, started_at=1.0),
        WorkerRecord("young", "busy", busy_slots=1, started_at=2.0),
    ]
    assert choose_retirees(workers, 3) == ["young", "old", "full"]
