"""The simulation behind the scaler's defaults, in a form that takes seconds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from scaler.load import Limits
from tests.processes import ROOT

NAMES = ("common", "serving", "sim_model", "sim_policies", "scaler_sim")


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
        return model.simulate(policies["promptq"](), model.TRACES["flash 50×"], 10, seed)

    assert run(1).waits == run(1).waits
    assert run(1).waits != run(2).waits


@pytest.mark.parametrize("name", ["promptq", "KEDA + HPA", "Knative KPA", "RunPod delay", "RunPod count", "Ray Serve"])
def test_jobs_and_workers_add_up(sim: dict[str, Any], name: str) -> None:
    model, policies = sim["sim_model"], sim["sim_policies"].policies(Limits(0, 10))
    outcome = model.simulate(policies[name](), model.TRACES["daily"], 10, 1)
    arrivals = 10 * model.SLOTS / model.SERVICE_SECONDS * model.TRACE_SECONDS * 0.475
    assert sum(outcome.waits.values()) == pytest.approx(arrivals, rel=0.05)
    least = arrivals * model.SERVICE_SECONDS / model.SLOTS
    assert least * 0.95 < outcome.worker_seconds <= 10 * model.TRACE_SECONDS * 1.2


def test_with_all_workers_there_nobody_waits(sim: dict[str, Any]) -> None:
    model = sim["sim_model"]
    outcome = model.simulate(lambda sight: sight.largest, model.TRACES["steady"], 10, 1)
    assert outcome.p95() == 0
    assert outcome.changes == 1


def test_ours_waits_less_than_the_slow_rules_in_every_trace(sim: dict[str, Any]) -> None:
    model, policies = sim["sim_model"], sim["sim_policies"].policies(Limits(0, 10))
    for trace in model.TRACES.values():
        ours = model.simulate(policies["promptq"](), trace, 10, 1).p95()
        assert ours < model.simulate(policies["KEDA + HPA"](), trace, 10, 1).p95()


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_is_in_the_makefile_or_shared(path: Any) -> None:
    text = (ROOT / "Makefile").read_text()
    assert path.stem in ("common", "serving", "sim_model", "sim_policies") or path.stem in text
