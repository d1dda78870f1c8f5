"""The scaler's loop on a cluster that misbehaves: whatever happens, it ends with the workers that there are to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from promptq.contract.metrics import ScalerMetrics
from promptq.contract.settings import ScalerSettings
from scaler.fleets.kubernetes.fleet import KubernetesFleet
from scaler.load import Limits
from scaler.loop import ScalerLoop
from scaler.pools import PoolSpec
from scaler.scaling import Scaling
from tests import pod_statuses
from tests.fake_kubernetes import FakeKubernetes, Refusal
from tests.fakes import NOW, TimedStore, fake_redis
from tests.kubernetes_rig import fleet_on
from tests.processes import wait_until

SETTINGS = ScalerSettings(_env_file=None)
WORKERS = 2


class Cluster:
    """A scaler's loop that keeps two workers, its API server, and a node that starts what it is given.

    Attributes:
        crashes: how many of the next pods crash.
        pulls: whether images are still being pulled.
    """

    def __init__(self, server: FakeKubernetes, fleet: KubernetesFleet) -> None:
        self.server = server
        self.fleet = fleet
        self.crashes = 0
        self.pulls = False
        self._at = 0.0
        self._store = store = TimedStore(fake_redis(), SETTINGS)
        store.uptime_seconds = lambda: 9999.0  # type: ignore[method-assign]  # fakeredis says nothing of it
        spec = PoolSpec(SETTINGS.default_model, Limits(WORKERS, 3))
        scaling = Scaling(fleet, [spec], {"cpu": 3}, ScalerMetrics(CollectorRegistry()), SETTINGS)
        self._loop = ScalerLoop(fleet, scaling, store, lambda: self._at)
        self._loop.initialize()

    def round(self, seconds: float = 1.0) -> None:
        """The scaler decides, and the node does what there is to do."""
        self._at += seconds
        self._loop.loop(NOW + self._at)
        for name, pod in self.server.pods.items():
            if pod["status"]["phase"] == "Pending":
                self.server.set(name, self._next_status())
            if pod["status"]["phase"] == "Running":
                self._register(name)

    def settle(self) -> set[str]:
        """Rounds until all is as it should be; the names of the pods."""
        wait_until(lambda: self.round() or self._is_right(), 60, f"{WORKERS} workers: {self.server.pods.keys()}")
        return set(self.server.pods)

    def _register(self, name: str) -> None:
        """As a worker's heartbeat does."""
        keys, client = self._store.keys, self._store.client
        client.sadd(keys.workers_of("default"), keys.worker(name))
        fields = {"phase": "idle", "slots": 2, "metrics_url": "http://h:1", "model": SETTINGS.default_model}
        client.hset(keys.worker(name), mapping=fields | {"successful_job_count": 1})

    def _is_right(self) -> bool:
        pods = self.server.pods
        run = [name for name, pod in pods.items() if pod["status"]["phase"] == "Running"]
        whole = not any("deletionTimestamp" in pod["metadata"] for pod in pods.values())
        known = {worker.name for worker in self.fleet.roster()}
        return whole and len(run) == WORKERS and set(run) == set(pods) == known and not self.fleet.trouble("any")

    def _next_status(self) -> pod_statuses.Status:
        if self.pulls:
            return pod_statuses.PULLING
        self.crashes -= 1
        return pod_statuses.crashed() if self.crashes >= 0 else pod_statuses.RUNNING


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = FakeKubernetes()
    fleet = fleet_on(server, tmp_path)
    yield Cluster(server, fleet)
    fleet.close()
    server.close()


def slow_pull(cluster: Cluster, name: str) -> None:
    cluster.server.remove(name)
    cluster.pulls = True
    for _ in range(40):
        cluster.round(60)
    assert len(cluster.server.pods) == WORKERS, "nobody has lost patience"
    cluster.pulls = False


def eviction(cluster: Cluster, name: str) -> None:
    cluster.server.set(name, pod_statuses.EVICTED)


def crash_loop(cluster: Cluster, name: str) -> None:
    cluster.crashes = 4
    cluster.server.set(name, pod_statuses.crashed())


def node_gone(cluster: Cluster, name: str) -> None:
    cluster.server.set(name, pod_statuses.TAINTED)
    cluster.server.answer("DELETE", f"/api/v1/namespaces/prompts/pods/{name}", {}, None)


def conflicts(cluster: Cluster, name: str) -> None:
    cluster.server.fail("POST", *(Refusal(409, "Conflict", "the object has been modified") for _ in range(3)))
    cluster.server.remove(name)


def too_many_requests(cluster: Cluster, name: str) -> None:
    cluster.server.fail("POST", *(Refusal(429, "TooManyRequests", "slow down", retry_after=7) for _ in range(2)))
    cluster.server.fail("DELETE", Refusal(429, "TooManyRequests", "slow down"))
    cluster.server.set(name, pod_statuses.crashed())


def watch_broken(cluster: Cluster, name: str) -> None:
    with cluster.server.still():
        cluster.server.fail("WATCH", Refusal(500, "InternalError", "etcdserver: leader changed"))
        cluster.server.cut_watches()
        cluster.server.remove(name)
        cluster.server.compact()


@pytest.mark.parametrize(
    "trouble", [slow_pull, eviction, crash_loop, node_gone, conflicts, too_many_requests, watch_broken]
)
def test_each_ends_with_the_right_fleet(cluster: Cluster, trouble: Callable[[Cluster, str], None]) -> None:
    gone, stays = sorted(cluster.settle())
    trouble(cluster, gone)
    wait_until(lambda: cluster.round(5.0) or gone not in cluster.server.pods, 60, f"{gone} to be replaced")
    assert stays in (now := cluster.settle())
    assert len(now) == WORKERS
    assert gone not in now
