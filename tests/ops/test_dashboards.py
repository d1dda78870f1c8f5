"""The dashboards against Grafana's schema and against the metrics in the code."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml
from prometheus_client import CollectorRegistry

from promptq.contract import metrics
from tests.processes import ROOT

GRAFANA = ROOT / "ops" / "grafana"
SCHEMA = json.loads((ROOT / "tests/ops/grafana-dashboard.schema.json").read_text())
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
ROWS = [
    "Overview", "Models", "API", "Queue", "Batching", "Workers", "Autoscaler", "Cache", "Batches", "Webhooks", "GPU",
    "Load test",
]  # fmt: skip
NOT_OURS = {"up", "time", "vector", "ALERTS"}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    for board in BOARDS.values():
        for panel in panels(board):
            yield from ((f"{board['title']} / {panel['title']}", target["expr"]) for target in panel["targets"])
        yield from ((note["name"], note["expr"]) for note in board["annotations"]["list"])
    for path in (ROOT / "ops/prometheus/rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from ((rule.get("alert") or rule["record"], rule["expr"]) for rule in group["rules"])


def exported() -> set[str]:
    """Every name that our programs export, with what Prometheus makes of histograms and counters."""
    registry = CollectorRegistry()
    for kind in (metrics.ApiMetrics, metrics.WorkerMetrics, metrics.ScalerMetrics, metrics.DispatcherMetrics):
        kind(registry)
    collected = (
        metrics.QUEUE_JOBS, metrics.QUEUE_OLDEST_AGE, metrics.GPU_UTILIZATION, metrics.GPU_MEMORY_USED,
        metrics.GPU_MEMORY_TOTAL, metrics.REDIS_TROUBLES,
    )  # fmt: skip
    names = set(registry._names_to_collectors) | {name for name, *_ in collected}
    return names | {f"{name}_total" for name, *_ in (metrics.LEASE_EXPIRIES, metrics.JOBS_REQUEUED)}


def recorded() -> set[str]:
    rules = yaml.safe_load((ROOT / "ops/prometheus/rules/recording.yml").read_text())["groups"][0]["rules"]
    return {rule["record"] for rule in rules}


def of_locust() -> set[str]:
    text = (ROOT / "locustfiles/_metrics.py").read_text()
    names = set(re.findall(r'"(locust_\w+)"', text))
    return names | {f"{name}_total" for name in names}


@pytest.mark.parametrize(("where", "expr"), list(expressions()), ids=lambda value: str(value)[:60])
def test_every_metric_that_is_asked_for_exists(where: str, expr: str) -> None:
    names = set(re.findall(r"\b(?:promptq|locust)[\w:]*", re.sub(r"\{[^}]*\}", "", expr)))
    assert names <= exported() | recorded() | of_locust(), where


@pytest.mark.parametrize("name", BOARDS)
def test_the_dashboard_fits_grafanas_schema(name: str) -> None:
    board = json.loads(json.dumps(BOARDS[name]))
    for note in board["annotations"]["list"]:
        for own in (
            "expr",
            "step",
            "titleFormat",
            "textFormat",
            "tagKeys",
        ):  # Prometheus', which the schema leaves open
            note.pop(own)
    errors = [
        f"{error.instance_path}: {error.message}" for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(board)
    ]
    assert errors == []


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows_in_which_unit(name: str) -> None:
    board = BOARDS[name]
    assert board["schemaVersion"] == 39
    for panel in panels(board):
        assert panel["title"], panel
        assert panel["description"], panel
        assert panel["fieldConfig"]["defaults"]["unit"], panel
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("name", BOARDS)
def test_the_data_source_is_a_variable_and_rates_fit_the_scrape(name: str) -> None:
    board = BOARDS[name]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    for panel in panels(board):
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\[([^\]]+)\]", target["expr"])) <= {"$__rate_interval"}


def test_the_rows_that_were_asked_for_are_there() -> None:
    rows = [panel["title"] for board in BOARDS.values() for panel in board["panels"] if panel["type"] == "row"]
    assert sorted(rows) == sorted(ROWS)


def test_panels_do_not_overlap() -> None:
    for board in BOARDS.values():
        seen: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & seen, panel["title"]
            assert at["x"] + at["w"] <= 24
            seen |= cells


def test_the_files_are_what_the_generator_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GRAFANA))
    made = runpy.run_path(str(GRAFANA / "build.py"))["texts"]()
    monkeypatch.delitem(sys.modules, "panels")
    assert made == {path.name: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}


def test_grafana_finds_the_data_source_and_the_dashboards() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/promptq.yml").read_text())["providers"]
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    scrape = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert {board["templating"]["list"][0]["current"]["value"] for board in BOARDS.values()} == {source["uid"]}
    assert f"./ops/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert source["jsonData"]["timeInterval"] == scrape
