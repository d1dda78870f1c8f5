"""From a template to the pods of a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from promptq.contract.errors import SettingsError
from scaler.fleets.kubernetes.template import Making, label_value, manifest, named, read_template

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "promptq"}},
    "spec": {"containers": [{"name": "mesh"}, {"name": "worker", "env": [{"name": "PROMPTQ_SLOTS", "value": "4"}]}]},
}


def made(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"environment": {"PROMPTQ_WORKER_MODEL": "a/b"}, "drain_seconds": 30.2}
    return manifest(TEMPLATE, Making("promptq-scaler", "a/b", **given | changes))


def worker(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["containers"][1]


def test_the_pod_is_the_fleets_and_has_time_to_drain() -> None:
    pod = made()
    assert pod["metadata"]["labels"] == {
        "app": "promptq", "promptq/fleet": "promptq-scaler", "promptq/pool": label_value("a/b"),
        "promptq/template": pod["metadata"]["labels"]["promptq/template"],
    }  # fmt: skip
    assert pod["metadata"]["annotations"] == {"promptq/model": "a/b"}
    assert (pod["spec"]["restartPolicy"], pod["spec"]["terminationGracePeriodSeconds"]) == ("Never", 36)
    assert "resources" not in worker(pod)


def test_the_worker_is_found_at_its_pods_address_under_its_pods_name() -> None:
    pod = named(made(), "worker-1", {"uid": "u"})
    names = {entry["name"]: entry for entry in worker(pod)["env"]}
    assert names["PROMPTQ_WORKER_METRICS_HOST"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert names["PROMPTQ_WORKER_NAME"]["value"] == pod["metadata"]["name"] == "worker-1"
    assert pod["metadata"]["ownerReferences"] == [{"uid": "u"}]
    assert (names["PROMPTQ_SLOTS"]["value"], names["PROMPTQ_WORKER_MODEL"]["value"]) == ("4", "a/b")


def test_gpus_are_limits_of_the_workers_container_alone() -> None:
    pod = made(gpus=2)
    assert worker(pod)["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    assert "resources" not in pod["spec"]["containers"][0]
    assert worker(made(gpus=1, gpu_resource="amd.com/gpu"))["resources"] == {"limits": {"amd.com/gpu": "1"}}


def test_what_else_an_entry_asks_for_is_requested() -> None:
    asked = {"CPU": 4, "memory": 32e9, "example.com/fpga": 1}
    assert worker(made(gpus=1, resources=asked))["resources"] == {
        "requests": {"cpu": "4", "memory": "32000000000"},
        "limits": {"nvidia.com/gpu": "1", "memory": "32000000000", "example.com/fpga": "1"},
    }
    with pytest.raises(SettingsError, match="a/b: resources: accelerator_type:A100 is none of Kubernetes"):
        made(resources={"accelerator_type:A100": 0.01})


def test_what_the_template_says_is_kept() -> None:
    assert [
        one for one in worker(made(environment={"PROMPTQ_SLOTS": "9"}))["env"] if one["name"] == "PROMPTQ_SLOTS"
    ] == [{"name": "PROMPTQ_SLOTS", "value": "4"}]
    assert worker(made(command=("/opt/vllm/bin/python", "-m", "gpu_worker")))["command"][0] == "/opt/vllm/bin/python"


def test_the_hash_changes_with_whatever_a_worker_is_made_of() -> None:
    hashes = [made(**changes)["metadata"]["labels"]["promptq/template"] for changes in ({}, {}, {"gpus": 1})]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("name", ["qwen3-8b", "Qwen/Qwen3-8B", "a" * 128, "x/" * 60 + "y", "a.", "ä"])
def test_a_label_of_any_model_is_one_that_kubernetes_takes(name: str) -> None:
    label = label_value(name)
    assert len(label) <= 63
    assert label[0].isalnum()
    assert label[-1].isalnum()
    assert label_value("a/b") != label_value("a_b")


def test_a_model_may_have_a_template_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    (tmp_path / "big.yaml").write_text(yaml.safe_dump(TEMPLATE | {"metadata": {"labels": {"its": "own"}}}))
    assert read_template(path, "small")["metadata"]["labels"] == {"app": "promptq"}
    assert read_template(path, "big")["metadata"]["labels"] == {"its": "own"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "while parsing"),
        ("kind: Deployment", "is no pod"),
        ("spec: {}", "spec.containers: there is none"),
        ("spec: {containers: [{image: x}]}", "spec.containers: each needs a name"),
        ("spec: {restartPolicy: Always, containers: [{name: x}]}", "spec.restartPolicy: must be Never"),
    ],
)
def test_a_wrong_template_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "worker.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        read_template(path, "a")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("PROMPTQ_KUBERNETES_TEMPLATE")


def test_no_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_template(tmp_path / "worker.yaml", "a")
