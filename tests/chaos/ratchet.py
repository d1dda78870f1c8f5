"""`python -m tests.chaos.ratchet`: runs the scenarios, and holds what they show against the table.

A run fails when a scenario shows something worse than the table has, or better without that being noted: `--write`
notes it. What is broken needs a reason in the table, which somebody has to write.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.table import Entry, Outcome, entry_of, judge, read, write
from tests.chaos.trial import run

Told = Callable[[Scenario, Outcome, float], None]


def run_all(
    scenarios: Sequence[Scenario], folder: Path, at_once: int, times: int = 1, tell: Told = lambda *_: None
) -> dict[str, list[Outcome]]:
    """Run scenarios, some beside one another; by name, what each run showed."""
    shown: dict[str, list[Outcome]] = {scenario.name: [] for scenario in scenarios}

    def one(scenario: Scenario, number: int) -> None:
        began = time.monotonic()
        outcome = run(scenario, folder / f"{scenario.name}-{number}")
        shown[scenario.name].append(outcome)
        tell(scenario, outcome, time.monotonic() - began)

    with ThreadPoolExecutor(at_once) as pool:
        runs = [pool.submit(one, scenario, number) for number in range(times) for scenario in scenarios]
        for each in runs:
            each.result()
    return shown


def findings(shown: dict[str, list[Outcome]]) -> list[str]:
    """What is not as the table has it."""
    noted = read()
    return [f"{name}: {line}" for name, outcomes in shown.items() for line in judge(noted.get(name), outcomes)]


def main() -> int:
    """0: all is as it was noted."""
    given = _arguments()
    chosen = [scenario for scenario in SCENARIOS if any(word in scenario.name for word in given.only or [""])]
    folder = Path(tempfile.mkdtemp(prefix="promptq-ratchet-"))
    shown = run_all(chosen, folder, given.at_once, given.times, _tell)
    if given.write:
        _write(chosen, shown)
    wrong = findings(shown)
    print("\n".join(wrong) or "all is as it was noted")
    print(f"logs: {folder}")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.ratchet", description=__doc__)
    parser.add_argument("only", nargs="*", help="scenarios with one of these in their names; none: all")
    parser.add_argument("--times", type=int, default=1, help="how often each is run")
    parser.add_argument("--at-once", type=int, default=4, help="how many run beside one another")
    parser.add_argument("--write", action="store_true", help="note what these runs show")
    return parser.parse_args()


def _tell(scenario: Scenario, outcome: Outcome, seconds: float) -> None:
    state = "breaks " + ", ".join(outcome.breaches) if outcome.breaches else "holds"
    counts = f"{outcome.crashes} crashes, {outcome.doubled} doubled"
    print(f"{scenario.name:36}{seconds:6.1f} s  {counts:26}{state}", flush=True)


def _write(chosen: Sequence[Scenario], shown: dict[str, list[Outcome]]) -> None:
    noted = read()
    for scenario in chosen:
        before = noted.get(scenario.name, Entry())
        noted[scenario.name] = entry_of(shown[scenario.name], scenario.most_doubled, before.reason or "not looked at")
    write({scenario.name: noted[scenario.name] for scenario in SCENARIOS if scenario.name in noted})


if __name__ == "__main__":
    sys.exit(main())
