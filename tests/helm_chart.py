"""The Helm chart, rendered as Helm does it, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tests.processes import ROOT

CHART = ROOT / "ops" / "helm" / "promptq"
RELEASE = "demo"
NAMESPACE = "prompts"
VALUE_FILES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))
Object = dict[str, Any]


def values(file: str) -> Object:
    """What one of the value files says."""
    return yaml.safe_load((CHART / "ci" / file).read_text()) or {}


def render(given: Mapping[str, Any]) -> list[Object]:
    """Every object of a release with these values."""
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(dict(given), name=RELEASE, namespace=NAMESPACE)
    texts = [text for path, text in rendered.items() if not path.endswith(".txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, f"{RELEASE}-{name}"))


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """The templates of pods, by component: those of Deployments, StatefulSets, and those that the scaler makes."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"], one["spec"]["template"]
        if one["kind"] == "ConfigMap":
            for name, text in one["data"].items():
                if name.endswith(".yaml"):
                    yield "worker", yaml.safe_load(text)


def literal_environment(container: Object) -> dict[str, str]:
    """What a container's environment says outright."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
