"""The simulation behind the scaler's defaults, in a form that takes seconds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from scaler.load import Limits, Load
from scaler.policy import History
from tests.processes import ROOT

NAMES = ("common", "serving", "sim_traces", "sim_model", "sim_policies", "sim_bound", "first_policy", "scaler_sim",
         "sim_tables", "sim_plan", "sim_planner", "sim_foresight")  # fmt: skip
POLICIES = ["promptq", "before", "KEDA + HPA", "Knative KPA", "RunPod delay", "RunPod count", "Ray Serve", "llm-d WVA",
            "AIBrix APA"]  # fmt: skip


@pytest.fixture(scope="module")
def sim() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(ROOT / "experiments"))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(ROOT / "experiments"))
    for name in NAMES:
        del sys.modules[name]


def test_a_run_follows_from_its_seed(sim: dict[str, Any]) -> None:
    model, policies = sim["sim_model"], sim["sim_policies"].policies(Limits(0, 10))

    def run(seed: int) -> Any:
        return model.simulate(policies["promptq"](), sim["sim_traces"].traces()["flash 50×"][1700:2000], 10, seed)

    assert run(1).waits == run(1).waits
    assert run(1).waits != run(2).waits


@pytest.mark.parametrize("name", POLICIES)
def test_jobs_and_workers_add_up(sim: dict[str, Any], name: str) -> None:
    model, policies = sim["sim_model"], sim["sim_policies"].policies(Limits(0, 10))
    trace = sim["sim_traces"].traces()["daily"][::6]
    outcome = model.simulate(policies[name](), trace, 10, 1)
    arrivals = 10 * model.SLOTS / model.SERVICE_SECONDS * trace.sum()
    assert sum(outcome.waits.values()) == pytest.approx(arrivals, rel=0.05)
    least = arrivals * model.SERVICE_SECONDS / model.SLOTS
    assert least * 0.75 < outcome.worker_seconds <= 10 * len(trace) * 1.2


@pytest.mark.parametrize("keeps", [True, False])
def test_with_all_workers_there_nobody_waits(sim: dict[str, Any], keeps: bool) -> None:
    model, trace = sim["sim_model"], sim["sim_traces"].traces()["steady"][:600]
    outcome = model.simulate(lambda sight: sight.largest, trace, 10, 1, 1.0, keeps)
    assert (outcome.p95(), outcome.changes, outcome.starts) == (0, 1, 10)
    assert outcome.worker_seconds == 10 * 600 - 10 * model.STEP_SECONDS


def test_a_worker_that_goes_costs_until_its_rows_have_ended_unless_they_are_put_back(sim: dict[str, Any]) -> None:
    model = sim["sim_model"]

    def cost(keeps: bool) -> float:
        fleet = model.SimulatedFleet(2, 1, 1.0, keeps)
        fleet.obey(2, 0.0)
        for number in range(400):
            fleet.step(number / 2, 8.0 if number < 200 else 0.0)
            if number == 100:
                fleet.obey(1, number / 2)
        assert len(fleet.due) == 1
        return fleet.outcome.worker_seconds

    assert cost(keeps=False) > cost(keeps=True) + 3


def test_rows_of_a_full_worker_take_the_mean_time(sim: dict[str, Any]) -> None:
    model = sim["sim_model"]
    fleet = model.SimulatedFleet(50, 1, 0.1, True)
    fleet.obey(50, 0.0)
    for number in range(2400):
        fleet.step(number / 2, 50 * model.SLOTS)
    busy = 2400 / 2 * 50 * model.SLOTS
    assert busy / fleet.ended == pytest.approx(model.SERVICE_SECONDS, rel=0.05)


def test_ours_waits_less_than_the_slow_rules(sim: dict[str, Any]) -> None:
    model, policies = sim["sim_model"], sim["sim_policies"].policies(Limits(0, 10))
    for name in ("burst", "on-off"):
        trace = sim["sim_traces"].traces()[name][1000:2000]
        ours = model.simulate(policies["promptq"](), trace, 10, 1).p95()
        assert ours < model.simulate(policies["KEDA + HPA"](), trace, 10, 1).p95()


def test_the_first_policy_staffs_for_all_jobs_and_lets_none_go_while_one_waits_long(sim: dict[str, Any]) -> None:
    decide, limits, history = sim["first_policy"].FirstPolicy(), Limits(1, 4, 4), History()

    def wanted(at: float, queued: int, running: int, age: float, workers: int, starting: int = 0) -> int:
        decision = decide(Load(queued, running, age, workers, starting), history, limits, at)
        return decision.workers

    assert wanted(1, 5, 4, 0.5, 1) == 3
    assert wanted(2, 90, 4, 1.5, 3, 2) == 4
    assert wanted(40, 3, 4, 11.0, 4, 3) == 4
    assert wanted(80, 3, 4, 11.0, 4, 3) == 4, "a job has waited for more than 10 s"
    assert wanted(81, 0, 4, 0.0, 4) == 4, "the highest need of 30 s"
    assert wanted(112, 0, 4, 0.0, 4) == 1


def test_the_tables_have_a_row_for_each_trace_and_half_of_the_range_of_the_seeds(sim: dict[str, Any]) -> None:
    def row(trace: str, policy: str, **more: Any) -> dict[str, Any]:
        return {"trace": trace, "workers": 1000, "start": 10.0, "policy": policy, "p95": [1.0, 2.0], "starts": [7, 9],
                "hours": [1200.0, 1200.1], **more}  # fmt: skip

    rows = [row("walk", "promptq", bound=1000.0), row("walk", "before"), row("burst", "promptq"), row("burst", "KEDA")]
    assert sim["sim_tables"].markdown(rows).splitlines() == [
        "**1,000 workers, 10 s to start:**", "",
        "| trace | promptq | before | RunPod count | clairvoyant |", "|---|---|---|---|---|",
        "| walk | 1.5±0.5 / 1,200 / 8 | 1.5±0.5 / 1,200 / 8 | – | 1,000 (+20.0%) |",
        "| burst | 1.5±0.5 / 1,200 / 8 | – | – | – |", "",
        "**1,000 workers, 10 s to start:**", "",
        "| trace | KEDA |", "|---|---|", "| walk | – |", "| burst | 1.5±0.5 / 1,200 / 8 |",
    ]  # fmt: skip


def test_a_bound_that_is_not_solved_is_left_out(sim: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    foresight = sim["sim_foresight"]
    monkeypatch.setattr(foresight, "least_hours", lambda *_case: None)
    bound = foresight._bound("steady", 0.5, 10.0)
    assert bound is None
    assert foresight._above({"bound": bound}, 700.0) == "–"


def test_the_clairvoyant_pays_for_the_work_and_for_the_starts(sim: dict[str, Any]) -> None:
    bound, steady = sim["sim_bound"].bound, sim["sim_traces"].traces()["steady"][:400]
    hours = bound(steady, 1.0, 10.0)
    work = 0.7 * 400 / 3600
    assert work * 0.93 < hours < work * 1.08
    assert bound(steady, 1.0, 16.0) > hours > bound(steady, 20.0, 10.0)


def test_who_knows_everything_comes_to_the_bound_and_who_knows_less_pays_more(sim: dict[str, Any]) -> None:
    foresight, trace = sim["sim_foresight"], sim["sim_traces"].traces()["surges"][:160].copy()
    trace[120:] = 0.0  # the bound pays for no work that is left at the end
    least = foresight.WORKERS * sim["sim_bound"].bound(trace, 4.0, 10.0)
    hours = [foresight.at_wait(trace, 4.0, 10.0, ahead) for ahead in (0.0, 20.0, 160.0)]
    assert hours[2] == pytest.approx(least, rel=0.02)
    assert hours[0] > hours[1] * 1.005
    assert hours[1] >= hours[2]


def test_what_is_not_known_is_expected_to_go_on(sim: dict[str, Any]) -> None:
    plan, arrived = sim["sim_plan"], [2.0, 4.0, 6.0, 10.0, 30.0]
    assert list(plan.expected(arrived, 3, 3, 1, 3, plan.Guess(2))) == [6, 10, 13, 16]
    assert list(plan.expected(arrived, 3, 4, 1, 3, plan.Guess(2, 2.0))) == [6, 10, 30, 36]
    assert list(plan.expected(arrived, 0, 0, 2, 2, plan.Guess(2))) == [0, 0, 2, 4]


def test_a_late_share_between_two_runs_costs_what_lies_between(sim: dict[str, Any]) -> None:
    foresight = sim["sim_foresight"]
    runs = [foresight.Cost(0.0, 12.0), foresight.Cost(0.1, 8.0), foresight.Cost(0.1, 9.0)]
    assert foresight.fewest_hours(runs) == pytest.approx(10.0)
    assert foresight.fewest_hours(runs[1:]) == float("inf")


def test_the_planner_meets_its_wait_with_hardly_more_than_the_work(sim: dict[str, Any]) -> None:
    plan, trace = sim["sim_plan"], sim["sim_traces"].traces()["steady"][:400]
    planner = sim["sim_planner"].Planner(5.0, 10.0, 100, plan.Guess(30), 1)
    outcome = sim["sim_model"].simulate(planner, trace, 100, 1, 10.0)
    assert outcome.worker_seconds < 1.1 * 70 * 400
    assert outcome.p95() <= 15


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_is_in_the_makefile_or_shared(path: Any) -> None:
    text = (ROOT / "Makefile").read_text()
    assert path.stem in NAMES or path.stem in text
