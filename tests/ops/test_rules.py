"""Prometheus' own tools on what Prometheus is given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.ops.tools import tool
from tests.processes import ROOT

FOLDER = ROOT / "ops" / "prometheus"
RULES = yaml.safe_load((FOLDER / "rules/alerts.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((FOLDER / "tests/alerts_test.yml").read_text())["tests"]
LISTED = [
    "DispatcherDown", "BatchesStall", "WebhooksFail", "WebhooksWait", "WebhooksGivenUp",
    "WorkerDown", "EngineBroken", "UpstreamDown", "NoWorkersWithBacklog", "ScalerDown", "ScalerStale", "QueueWaitHigh",
    "Flapping", "AtMaxWithBacklog", "ErrorBudgetBurnFast",
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules/recording.yml", "rules/alerts.yml"],
        ["test", "rules", "tests/alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_is_content(arguments: list[str]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [rule["alert"] for rule in RULES])
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    cases = [case for test in CASES for case in test["alert_rule_test"] if case["alertname"] == name]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_the_alerts_that_were_asked_for_are_there_and_say_what_is_wrong() -> None:
    assert {*LISTED, "ApiDown"} == {rule["alert"] for rule in RULES}
    assert all({"summary", "description"} <= rule["annotations"].keys() for rule in RULES)


def test_the_case_file_is_only_found_by_promtool() -> None:
    assert not list(Path(FOLDER / "rules").glob("*test*")), "Prometheus would load it as rules"
