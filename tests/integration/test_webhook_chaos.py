"""Webhooks while dispatchers and Redis are killed; at length it is a program: `python -m tests.webhook_chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.webhook_chaos.run import run


def test_no_event_is_lost_and_none_comes_inside(tmp_path: Path) -> None:
    result = run(tmp_path, events=60, seed=3, every=0.5, pace=60, most_faults=2)
    assert result.wrong == [], result.report
    assert "dispatcher: 1, redis: 1" in result.report
