"""The chart as Helm's own code renders and lints it, each object held against Kubernetes' schemas."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptq.contract.settings import ApiSettings, DispatcherSettings, ScalerSettings, WorkerSettings
from scaler.fleets.kubernetes.pods import read
from scaler.fleets.kubernetes.template import Making, manifest
from scaler.fleets.kubernetes.template import named as named_pod
from tests import helm_chart as chart
from tests.discovery import api_server
from tests.helm_chart import VALUE_FILES, Object, literal_environment, named, pods, render
from tests.processes import ROOT

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not in .venvs/k8s")
schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not in .venvs/k8s")

KUBECTL = shutil.which("kubectl")
VERSIONS = ("1.29", "1.37")
OF_OPERATORS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")
"""Kinds that operators bring; Kubernetes' schemas have none of them."""
PROGRAMS: dict[str, Any] = {
    "api": ApiSettings, "dispatcher": DispatcherSettings, "scaler": ScalerSettings, "worker": WorkerSettings,
}  # fmt: skip


@cache
def rendered(file: str) -> list[Object]:
    return render(chart.values(file))


@pytest.fixture(params=VALUE_FILES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return rendered(request.param)


def test_there_are_four_ways_of_installing_it() -> None:
    assert VALUE_FILES == [
        "default-values.yaml", "external-redis-values.yaml", "gpu-values.yaml", "keda-values.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize("file", VALUE_FILES)
def test_helm_finds_nothing_wrong(file: str) -> None:
    report = helm.lint(chart.CHART, chart.values(file), strict=True)
    assert [found for found in report["messages"] if found["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects: list[Object], version: str) -> None:
    known = [one for one in objects if one["apiVersion"] not in OF_OPERATORS]
    for one in known:
        schemas.validate(one, version, strict=True)
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects) > 15


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not on PATH")
def test_kubectl_would_create_every_object(objects: list[Object], tmp_path: Path) -> None:
    with api_server(objects) as url:
        done = subprocess.run(
            [str(KUBECTL), "--server", url, "create", "--dry-run=client", "--validate=false", "-f", "-", "-o", "name"],
            input=yaml.safe_dump_all(objects), env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert (done.returncode, len(done.stdout.split())) == (0, len(objects)), done.stderr


@pytest.mark.parametrize("file", ["default-values.yaml", "gpu-values.yaml"])
def test_the_pods_that_the_scaler_makes_are_valid(file: str) -> None:
    templates = [pod for component, pod in pods(rendered(file)) if component == "worker"]
    assert len(templates) == (2 if file.startswith("gpu") else 1)
    for template in templates:
        made = manifest(template, Making("demo-scaler", "a/b", {"PROMPTQ_WORKER_MODEL": "a/b"}, 30, gpus=2))
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-scaler", "uid": "u", "controller": True}
        one = named_pod(made, "worker-1", owner)
        schemas.validate(one, VERSIONS[-1], strict=True)
        assert read(one).pool == "a/b"
        names = [entry["name"] for entry in one["spec"]["containers"][0]["env"]]
        assert len(names) == len(set(names))


def test_no_pod_has_rights_that_it_does_not_need(objects: list[Object]) -> None:
    for component, pod in pods(objects):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is (component == "scaler" and "Role" in kinds(objects))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert {"limits", "requests"} <= container["resources"].keys()
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in spec["volumes"]} | (
                {"data"} if component == "redis" else set()
            )


def test_the_scaler_may_do_what_it_does_and_no_more(objects: list[Object]) -> None:
    rules = [rule for one in objects if one["kind"] == "Role" for rule in one["rules"]]
    if "ScaledObject" in kinds(objects):
        assert rules == []
        return
    assert rules == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "create", "delete"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["demo-scaler"], "verbs": ["get"]},
    ]
    environment = literal_environment(container_of(objects, "scaler"))
    assert environment["PROMPTQ_KUBERNETES_OWNER"] == named(objects, "Deployment", "scaler")["metadata"]["name"]


@pytest.mark.parametrize("component", PROGRAMS)
def test_the_programs_accept_what_they_are_given(
    objects: list[Object], component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in literal_environment(container_of(objects, component)).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PROMPTQ_REDIS_URL", "rediss://promptq:secret@redis.example.org/0")
    models = next((one["data"]["models.toml"] for one in objects if "models.toml" in one.get("data", {})), "")
    if models:
        (tmp_path / "models.toml").write_text(models)
        monkeypatch.setenv("PROMPTQ_MODELS_FILE", str(tmp_path / "models.toml"))
    settings = PROGRAMS[component].load()
    assert settings.log_format == "json"


def test_every_selector_finds_the_pods_that_it_is_for(objects: list[Object]) -> None:
    labels = [(component, pod["metadata"]["labels"]) for component, pod in pods(objects)]
    for one in objects:
        wanted = selector_of(one)
        if wanted is None:
            continue
        found = {component for component, given in labels if wanted.items() <= given.items()}
        own = one["metadata"]["labels"]["app.kubernetes.io/component"]
        assert found == {own} or one["kind"] == "ServiceMonitor", one["metadata"]["name"]


def test_services_that_are_scraped_are_known_by_the_names_in_the_rules(objects: list[Object]) -> None:
    monitors = [one for one in objects if one["kind"] in ("ServiceMonitor", "PodMonitor")]
    assert len(monitors) in (0, 4)
    assert {one["spec"]["jobLabel"] for one in monitors} <= {"app.kubernetes.io/component"}
    services = [one for one in objects if one["kind"] == "Service"]
    for one in (one for one in monitors if one["kind"] == "ServiceMonitor"):
        wanted = one["spec"]["selector"]["matchLabels"]
        (service,) = [each for each in services if wanted.items() <= each["metadata"]["labels"].items()]
        assert one["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_rules_and_dashboards_are_those_of_compose() -> None:
    objects = rendered("external-redis-values.yaml")
    folder = ROOT / "ops"
    files = sorted((folder / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert named(objects, "PrometheusRule", "rules")["spec"]["groups"] == groups
    shown = {path.name: path.read_text() for path in (folder / "grafana" / "dashboards").glob("*.json")}
    assert named(objects, "ConfigMap", "dashboards")["data"] == shown


def test_redis_is_started_as_by_compose() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    command = container_of(rendered("default-values.yaml"), "redis")["command"]
    assert command == [word.replace("${REDIS_MAXMEMORY:-768mb}", "768mb") for word in compose]


def test_keda_counts_what_runs_too_and_takes_workers_away_slowly() -> None:
    objects = rendered("keda-values.yaml")
    scaled = named(objects, "ScaledObject", "worker")["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    assert 'state=~"queued|running"' in trigger["metadata"]["query"]
    worker = named(objects, "Deployment", "worker")["spec"]
    assert "replicas" not in worker, "or each upgrade would set the number that KEDA has set"
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] == 35
    assert literal_environment(container_of(objects, "scaler"))["PROMPTQ_FLEET"] == "external"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "keysSecret"),
        ({"redis": {"enabled": False}}, "urlSecret"),
        ({"api": {"replica": 3}}, "replica"),
        ({"scaler": {"maxWorkers": "many"}}, "maxWorkers"),
        ({"workers": {"models": {"a": {"pdb": {}}}}}, "pdb"),
        ({"settings": {"PROMPTQ_SLOTS": 4}}, "PROMPTQ_SLOTS"),
        ({"files": {"url": "gs://x"}}, "url"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    given = changes | ({"api": {"allowOpenBind": True} | changes.get("api", {})} if changes else {})
    with pytest.raises(helm.HelmError, match=words):
        render(given)


def kinds(objects: list[Object]) -> set[str]:
    return {one["kind"] for one in objects}


def container_of(objects: list[Object], component: str) -> Object:
    return next(pod["spec"]["containers"][0] for name, pod in pods(objects) if name == component)


def selector_of(one: Object) -> dict[str, str] | None:
    find: dict[str, Callable[[Any], Any]] = {
        "Service": lambda spec: spec["selector"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
    }
    return find[one["kind"]](one["spec"]) if one["kind"] in find else None
