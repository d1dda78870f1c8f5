"""A scaler process whose workers are pods: real workers, on a node of our own, behind a fake API server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from promptq.queue.embedded import EmbeddedServer
from tests import pod_statuses
from tests.fake_kubernetes import NAMESPACE, OWNER, FakeKubernetes
from tests.fakes import TimedStore
from tests.integration.scalers import Scaler, all_succeed, put, scaler
from tests.kubelet import Kubelet
from tests.processes import wait_until

KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "fake",
    "clusters": [{"name": "fake", "cluster": {"server": ""}}], "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": NAMESPACE}}],
}  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    fake = FakeKubernetes()
    yield fake
    fake.close()


@pytest.fixture
def on_pods(
    cluster: FakeKubernetes, server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """Of a scaler on the cluster."""
    KUBECONFIG["clusters"][0]["cluster"]["server"] = cluster.url
    (tmp_path / "config").write_text(yaml.safe_dump(KUBECONFIG))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    own = {
        "PROMPTQ_REDIS_URL": server.url, "PROMPTQ_ENGINE": "echo", "PROMPTQ_SLOTS": "4",
        "PROMPTQ_ECHO_TOKENS_PER_SECOND": "20", "PROMPTQ_LEASE_SECONDS": "1",
    }  # fmt: skip
    container = {
        "name": "worker", "image": pod_statuses.IMAGE, "command": ["python", "-m", "gpu_worker"],
        "env": [{"name": name, "value": value} for name, value in own.items()],
    }  # fmt: skip
    template = tmp_path / "worker.yaml"
    template.write_text(yaml.safe_dump({"spec": {"containers": [container]}}))
    return {"fleet": "kubernetes", "kubernetes_owner": OWNER, "kubernetes_template": template, "max_workers": 2}


def test_jobs_run_on_pods_that_are_killed_evicted_and_left_by_their_scaler(
    server: EmbeddedServer, store: TimedStore, cluster: FakeKubernetes, on_pods: dict[str, object]
) -> None:
    node = Kubelet(cluster)
    try:
        ids = put(store, 40)
        with scaler(server, min_workers=2, **on_pods) as first:
            wait_until(lambda: len(first.workers()) == 2, 240, "two workers")
            killed, evicted = sorted(first.workers())
            node.kill(killed)
            node.evict(evicted)
            wait_until(lambda: len(first.workers() - {killed, evicted}) == 2, 240, "two others")
            left = first.workers() - {killed, evicted}
            first.process.send_signal(signal.SIGTERM)
            first.process.wait()
            assert node.running() == left, "they go on without their scaler"
        with scaler(server, min_workers=0, zero_delay_seconds=1, **on_pods) as second:
            all_succeed(store, ids)
            wait_until(lambda: cluster.pods == {}, 60, "no pod, as nothing is to be done")
            wait_until(lambda: second.value('promptq_worker_exits_total{reason="retired"}') == 2, 60, "two retired")
        assert set(node._processes) == {killed, evicted} | left, "no pod was made twice"
    finally:
        node.close()


def test_why_no_worker_starts_is_said_to_all(
    server: EmbeddedServer, cluster: FakeKubernetes, on_pods: dict[str, object]
) -> None:
    cluster.on_create = lambda: pod_statuses.PULL_BACKS_OFF
    with scaler(server, **on_pods) as one:
        found = wait_until(lambda: trouble(one), 30, "the trouble")
        assert "ImagePullBackOff: Back-off pulling image" in found
        assert len(cluster.pods) == 1
        (name,) = cluster.pods
        assert one.observer.fleet().starting == [name]


def trouble(one: Scaler) -> str:
    fleet = one.observer.fleet()
    return fleet.trouble if fleet else ""
