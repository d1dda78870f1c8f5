"""Waiting for what another process does in its own time."""

from __future__ import annotations

import pytest

from tests.processes import wait_for_value


def test_a_value_is_waited_for() -> None:
    counts = iter([1, 2, 3])
    wait_for_value(lambda: next(counts), 3)


def test_one_that_never_comes_is_told_with_what_there_is() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the exits to be 4: it is 3\.0"):
        wait_for_value(lambda: 3.0, 4, 0.05, "the exits")
