"""From the template of a worker's pod to the pods of each pool."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from promptq.contract.errors import SettingsError
from scaler.fleets.kubernetes.pods import CONTAINER, FLEET_LABEL, MODEL_ANNOTATION, POOL_LABEL, TEMPLATE_LABEL

VARIABLE: Final = "PROMPTQ_KUBERNETES_TEMPLATE"
Manifest = dict[str, Any]
GRACE_SECONDS: Final = 5
"""From the end of the drain until the kubelet kills."""


@dataclass(frozen=True, slots=True)
class Making:
    """What the fleet adds to the template of a pool's pods.

    Attributes:
        fleet: whose pods they are: a label's value.
        environment: added to the worker's container, where the template does not name the variable.
        gpus: for each pod.
        gpu_resource: what the cluster calls a GPU.
        command: of the worker's container; None: as the template has it.
        resources: what else each pod takes: CPU, memory in bytes, and what a node offers under a name with a slash.
    """

    fleet: str
    pool: str
    environment: Mapping[str, str]
    drain_seconds: float
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    command: Sequence[str] | None = None
    resources: Mapping[str, float] = field(default_factory=dict)


def read_template(path: Path, pool: str) -> Manifest:
    """The template of a pool's pods: of a file beside `path` with the pool's label as its name, if there is one.

    Raises:
        SettingsError: it cannot be read, or is no pod.
    """
    own = path.with_name(f"{label_value(pool)}.yaml")
    file = own if own.exists() else path
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{VARIABLE}: {file} cannot be read: {error}", param=VARIABLE) from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{VARIABLE}: {file}: {' '.join(str(error).split())}", param=VARIABLE) from None
    _check(found, file)
    checked: Manifest = found
    return checked


def manifest(template: Manifest, making: Making) -> Manifest:
    """The pod without a name and an owner: the same for all pods of a pool, so that its hash tells old ones."""
    pod = copy.deepcopy(template)
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    spec = pod["spec"]
    # A worker that ends is replaced by the scaler, which counts why, and waits after a crash.
    spec["restartPolicy"] = "Never"
    spec["terminationGracePeriodSeconds"] = int(-(-making.drain_seconds // 1)) + GRACE_SECONDS
    _fill(_worker(spec["containers"]), making)
    meta = pod.setdefault("metadata", {})
    labels = {FLEET_LABEL: making.fleet, POOL_LABEL: label_value(making.pool)}
    meta["labels"] = (meta.get("labels") or {}) | labels
    meta["annotations"] = (meta.get("annotations") or {}) | {MODEL_ANNOTATION: making.pool}
    meta["labels"][TEMPLATE_LABEL] = _hash(pod)
    return pod


def named(pod: Manifest, name: str, owner: Mapping[str, Any] | None) -> Manifest:
    """The pod of one worker."""
    one = copy.deepcopy(pod)
    one["metadata"] |= {"name": name, "ownerReferences": [dict(owner)] if owner else []}
    environment = _worker(one["spec"]["containers"])["env"]
    environment[:] = [entry for entry in environment if entry["name"] != "PROMPTQ_WORKER_NAME"]
    environment.append({"name": "PROMPTQ_WORKER_NAME", "value": name})
    return one


def label_value(pool: str) -> str:
    """The pool's name as a label may have it: itself, or something as unlike others that is no longer than 63."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", pool):
        return pool
    digest = hashlib.sha256(pool.encode()).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9._-]', '_', pool)[:54]}-{digest}".lstrip("._-")


def _check(found: Any, file: Path) -> None:
    fault = ""
    if not isinstance(found, dict) or found.get("kind", "Pod") != "Pod":
        fault = "is no pod"
    elif not isinstance(found.get("spec"), dict) or not found["spec"].get("containers"):
        fault = "spec.containers: there is none"
    elif not all(isinstance(one, dict) and one.get("name") for one in found["spec"]["containers"]):
        fault = "spec.containers: each needs a name"
    elif found["spec"].get("restartPolicy", "Never") != "Never":
        fault = "spec.restartPolicy: must be Never: the scaler replaces workers"
    if fault:
        raise SettingsError(f"{VARIABLE}: {file}: {fault}", param=VARIABLE)


def _worker(containers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((one for one in containers if one["name"] == CONTAINER), containers[0])


def _fill(container: dict[str, Any], making: Making) -> None:
    if making.command:
        container["command"] = list(making.command)
    requests, limits = _amounts(making)
    for kind, amounts in (("requests", requests), ("limits", limits)):
        if amounts:
            resources = container["resources"] = dict(container.get("resources") or {})
            resources[kind] = (resources.get(kind) or {}) | amounts
    # The last lines of what a worker writes are then in its pod's status: no right to read logs is needed.
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    own = list(container.get("env") or [])
    given = {entry["name"] for entry in own}
    added: list[Manifest] = [
        {"name": name, "value": value} for name, value in making.environment.items() if name not in given
    ]
    # Prometheus, and whoever else reads the registration, finds a worker by its pod's address.
    if "PROMPTQ_WORKER_METRICS_HOST" not in given:
        place = {"fieldRef": {"fieldPath": "status.podIP"}}
        added.append({"name": "PROMPTQ_WORKER_METRICS_HOST", "valueFrom": place})
    container["env"] = own + added


def _amounts(making: Making) -> tuple[dict[str, str], dict[str, str]]:
    """Requests and limits, as Kubernetes writes them."""
    requests: dict[str, str] = {}
    limits = {making.gpu_resource: str(making.gpus)} if making.gpus else {}
    for name, amount in making.resources.items():
        if name == "CPU":
            requests["cpu"] = f"{amount:g}"
        elif name == "memory":
            requests["memory"] = limits["memory"] = str(int(amount))
        elif "/" in name:
            limits[name] = f"{amount:g}"
        else:
            raise SettingsError(f"{making.pool}: resources: {name} is none of Kubernetes")
    return requests, limits


def _hash(pod: Manifest) -> str:
    return hashlib.sha256(json.dumps(pod, sort_keys=True).encode()).hexdigest()[:10]
