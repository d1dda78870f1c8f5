"""The table: what counts as worse, as better, and what it must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptq.contract.failpoints import POINTS, parse
from tests.chaos.invariants import INVARIANTS
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.table import Entry, Outcome, entry_of, judge, read, write

HOLDS = Outcome()
BROKEN = Outcome({"nothing_lost": ["job 1 is gone", "job 2 is gone"]})


@pytest.mark.parametrize(
    ("noted", "shown", "said"),
    [
        (Entry(), [HOLDS], []),
        (Entry(), [HOLDS, BROKEN], ["worse: nothing_lost is broken: job 1 is gone"]),
        (Entry(breaks=("nothing_lost",), reason="r"), [BROKEN, HOLDS], []),
        (Entry(breaks=("nothing_lost",), reason="r"), [HOLDS], ["better: nothing_lost holds now"]),
        (Entry(4), [Outcome(doubled=4)], []),
        (Entry(4), [Outcome(doubled=3), Outcome(doubled=5)], ["worse: 5 tokens were generated twice, not 4"]),
        (Entry(20), [HOLDS], []),
        (Entry(20), [HOLDS, HOLDS, Outcome(doubled=1)], ["better: 1 tokens were generated twice, not 20"]),
        (Entry(20), [HOLDS, HOLDS, Outcome(doubled=4)], []),
        (None, [HOLDS], ["it is not in the table"]),
    ],
)  # fmt: skip
def test_what_is_said(noted: Entry | None, shown: list[Outcome], said: list[str]) -> None:
    assert judge(noted, shown) == said


def test_what_is_written_is_what_the_same_runs_show(tmp_path: Path) -> None:
    shown = [BROKEN, Outcome(doubled=2)]
    entry = entry_of(shown, promise=20, reason="it takes a lock")
    assert entry == Entry(9, ("nothing_lost",), "it takes a lock")
    assert entry_of([HOLDS], promise=0, reason="an old one") == Entry()
    write({"a": entry, "b": Entry()}, tmp_path / "t.toml")
    found = read(tmp_path / "t.toml")
    assert found == {"a": entry, "b": Entry()}
    assert judge(found["a"], shown) == []


def test_a_breach_needs_a_reason(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('[a]\nbreaks = ["nothing_lost"]\ndoubled = 0\n')
    with pytest.raises(ValueError, match="a: say for what reason"):
        read(tmp_path / "t.toml")


def test_the_table_has_each_scenario_and_no_more_than_was_promised() -> None:
    noted = read()
    assert list(noted) == [scenario.name for scenario in SCENARIOS]
    assert [one.name for one in SCENARIOS if noted[one.name].doubled > one.most_doubled] == []
    assert {law for entry in noted.values() for law in entry.breaks} <= INVARIANTS.keys()


def test_each_failpoint_has_a_scenario_and_a_name_one_scenario() -> None:
    hit = {point for one in SCENARIOS for text in one.failpoints.values() for point in parse(text)}
    assert set(POINTS) - hit == set()
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
