"""A fleet of pods on the fake API server, through the official client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration

from scaler.fleets.base import Exit
from scaler.fleets.kubernetes.api import PodApi
from scaler.fleets.kubernetes.fleet import KubernetesFleet, KubernetesFleetSettings
from scaler.fleets.launch import Launch
from tests import pod_statuses
from tests.fake_kubernetes import NAMESPACE, OWNER, FakeKubernetes
from tests.processes import wait_until

WORKERS_POOL = "qwen3-8b"
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "worker", "image": pod_statuses.IMAGE}]}}


def fleet_on(
    server: FakeKubernetes, folder: Path, most: int = 3, gpus: int = 0, wait_seconds: float = 10.0
) -> KubernetesFleet:
    """A fleet of at most `most` workers that leads."""
    path = folder / "worker.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    api = PodApi(Configuration(host=server.url), NAMESPACE, OWNER)
    pools = {"big": Launch(units=gpus, resource="gpu", gpus=gpus), WORKERS_POOL: Launch(gpus=0)}
    fleet = KubernetesFleet(KubernetesFleetSettings(OWNER, path, most, pools=pools), api, wait_seconds)
    fleet.take_over(0.0)
    return fleet


class KubernetesRig:
    """For the contract of fleets: the fake server's nodes start what they are given at once."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._server = FakeKubernetes()
        self._server.on_create = lambda: pod_statuses.RUNNING
        if kind == "crashes":
            self._server.on_create = pod_statuses.crashed
        if kind == "serves":
            self._server.on_sigterm = lambda name: self._server.finish(name, pod_statuses.FINISHED)
        self.fleet = fleet_on(self._server, folder)

    def settle(self) -> None:
        """Nothing to wait for: a pod that was made is told to end by its node."""

    def strike(self, name: str) -> None:
        self._server.set(name, pod_statuses.KILLED)

    def heal(self) -> None:
        self._server.on_create = lambda: pod_statuses.RUNNING

    def close(self) -> None:
        """The fleet follows no more, and the server ends."""
        self.fleet.close()
        self._server.close()


def wait_for_state(fleet: KubernetesFleet, name: str, state: str, now: float) -> None:
    """Poll until a worker has a state, and nothing has ended meanwhile."""

    def arrived() -> bool:
        assert fleet.poll(now) == []
        return any((worker.name, worker.state) == (name, state) for worker in fleet.roster())

    wait_until(arrived, what=f"{name} to be {state}")


def spawn(fleet: KubernetesFleet, now: float = 0.0) -> str:
    """One worker more; its name."""
    before = names(fleet)
    assert fleet.spawn(1, WORKERS_POOL, now) == 1
    return next(name for name in names(fleet) if name not in before)


def names(fleet: KubernetesFleet) -> list[str]:
    return [worker.name for worker in fleet.roster()]


def states(fleet: KubernetesFleet) -> list[str]:
    return [worker.state for worker in fleet.roster()]


def register(fleet: KubernetesFleet, now: float, finished: int = 0) -> None:
    fleet.observe([replace(one, state="idle", jobs_finished=finished) for one in fleet.roster()], now)


def sees(fleet: KubernetesFleet, condition: Callable[[], bool], now: float, what: str) -> None:
    """Poll until something is so, and nothing has ended meanwhile."""
    wait_until(lambda: fleet.poll(now) == [] and condition(), what=what)


def exit_of(fleet: KubernetesFleet, now: float) -> Exit:
    found: list[Exit] = []
    wait_until(lambda: found.extend(fleet.poll(now)) or found, what="an exit")
    assert len(found) == 1
    return found[0]
