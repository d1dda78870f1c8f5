"""What of the Helm chart can be seen without Helm; tests/extras/test_helm.py renders it."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
import yaml

import promptq
from promptq.contract.environment import PREFIX
from promptq.contract.settings import PROGRAMS
from tests.helm_chart import CHART, VALUE_FILES, values
from tests.processes import ROOT

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As Helm lays one file of values over another."""
    both = {name: merged(below[name], above[name]) for name in above if isinstance(below.get(name), dict)}
    return below | above | both


def test_the_chart_installs_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == promptq.__version__


@pytest.mark.parametrize("file", VALUE_FILES)
def test_the_schema_accepts_the_value_files(file: str) -> None:
    assert [
        error.message for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(merged(DEFAULTS, values(file)))
    ] == []


def test_the_schema_knows_every_value_and_refuses_others() -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    for name, value in DEFAULTS.items():
        assert not validator.is_valid(DEFAULTS | {f"{name}s_": value})
        if isinstance(value, dict) and name != "settings":
            assert not validator.is_valid(DEFAULTS | {name: value | {"nonsense": 1}}), name


def test_every_setting_that_the_templates_pass_on_exists() -> None:
    known = {PREFIX + name.upper() for program in PROGRAMS for name in program.model_fields}
    used = {name for path in CHART.rglob("templates/*") for name in re.findall(r"PROMPTQ_[A-Z_]+", path.read_text())}
    assert used - known == set()
    assert len(used) > 10


@pytest.mark.parametrize(("folder", "of"), [("rules", "prometheus/rules"), ("dashboards", "grafana/dashboards")])
def test_rules_and_dashboards_are_no_copies(folder: str, of: str) -> None:
    files = sorted((CHART / "files" / folder).iterdir())
    assert [file.resolve() for file in files] == sorted(path for path in (ROOT / "ops" / of).iterdir())
