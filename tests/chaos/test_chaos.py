"""The fault harness in short: every kind of fault once, a hundred or so jobs, the whole audit."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.plan import KILLS, LEASE_SECONDS, make
from tests.chaos.run import run

OTHERS = (
    "pause worker", "drain worker", "drop connections", "silence connections", "flush scripts", "fill queue",
    "fill disk", "step clock",
)  # fmt: skip
ONE_OF_EACH = dict.fromkeys((*KILLS, *OTHERS), 1)


def test_a_seed_always_makes_the_same_plan() -> None:
    assert make(7, 50, ONE_OF_EACH) == make(7, 50, ONE_OF_EACH)
    assert make(7, 50, ONE_OF_EACH) != make(8, 50, ONE_OF_EACH)


def test_every_acknowledged_job_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    outcome = run(1, 250, ONE_OF_EACH, tmp_path, pause=2.5)
    print(outcome.table())
    assert outcome.findings == []
    assert {kind: outcome.injector.done[kind] for kind in KILLS} == dict.fromkeys(KILLS, 1)
    assert outcome.audit.lost_in_window == 0
    assert outcome.injector.done["fill queue"] == 1
    assert outcome.crowd.answers["429 in a flood"] > 0
    assert outcome.audit.readings["whole"] > 20
    assert outcome.longest(undisturbed=True) <= LEASE_SECONDS + 3
