"""The quick ones of the scenarios show what the table has; `make chaos` runs them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.ratchet import findings, run_all
from tests.chaos.scenarios import SCENARIOS

AT_ONCE = 4


@pytest.mark.timeout(900)
def test_the_quick_scenarios_are_as_they_were_noted(tmp_path: Path) -> None:
    quick = [scenario for scenario in SCENARIOS if scenario.quick]
    assert findings(run_all(quick, tmp_path, AT_ONCE)) == []
