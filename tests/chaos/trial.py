"""Runs one scenario, and says what came of it."""

from __future__ import annotations

from pathlib import Path

from promptq.contract.failpoints import parse
from tests.chaos import witness
from tests.chaos.facts import Facts
from tests.chaos.invariants import check
from tests.chaos.rig import Rig, rigged
from tests.chaos.scenarios import END_SECONDS, Scenario
from tests.chaos.table import Outcome
from tests.chaos.work import Work


def run(scenario: Scenario, folder: Path) -> Outcome:
    """From the start of the first program to the judgement over what is left."""
    folder.mkdir(parents=True, exist_ok=True)
    work = scenario.work()
    with rigged(folder, **scenario.settings) as rig:
        try:
            _work(scenario, rig, work)
            return _judge(scenario, rig, work)
        finally:
            work.close()


def _work(scenario: Scenario, rig: Rig, work: Work) -> None:
    # Before there is anybody to begin: then all of it is claimed at once.
    if "api" not in scenario.programs:
        work.begin(rig)
    for name, module in scenario.programs.items():
        own = {"lease_seconds": 1} if name == "dispatcher" else {}
        rig.start(name, module, scenario.failpoints.get(name, ""), **own)
    if "api" in scenario.programs:
        assert rig.wait(rig.serves, END_SECONDS), "the API does not answer"
        work.begin(rig)
    scenario.disturb(rig, work)
    # Some fail when all that was asked for is done.
    rig.wait(lambda: work.is_done(rig) and not _missing(scenario, rig), END_SECONDS)


def _missing(scenario: Scenario, rig: Rig) -> list[str]:
    """What was to happen and has not, so that the scenario shows nothing."""
    points = {point for text in scenario.failpoints.values() for point in parse(text)}
    crashes = sum(rig.crashes.values())
    missing = [f"{point} was never hit" for point in sorted(points - rig.sprung())]
    return missing + ([f"{crashes} crashes, not {scenario.crashes}"] if crashes < scenario.crashes else [])


def _judge(scenario: Scenario, rig: Rig, work: Work) -> Outcome:
    crashes, missing = sum(rig.crashes.values()), _missing(scenario, rig)
    stopped = rig.stop()
    seen = witness.read(rig.witness_folder)
    facts = Facts(
        rig.store, witness=seen, most_doubled=scenario.most_doubled, most_attempts=scenario.most_attempts,
        stopped=stopped, **work.facts(rig),
    )  # fmt: skip
    breaches = check(facts)
    if missing:
        breaches["it_happens"] = missing
    if not stopped:
        breaches["programs_end_in_order"] = ["a program did not end in time"]
    return Outcome(breaches, crashes, max(seen.doubled_by_job.values(), default=0))
