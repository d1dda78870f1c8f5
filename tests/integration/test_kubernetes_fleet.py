"""What happens to pods in a cluster, and what the fleet makes of it: a fake API server, the official client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.fleets.kubernetes.fleet import NODE_SECONDS, KubernetesFleet
from scaler.fleets.kubernetes.template import GRACE_SECONDS
from tests import pod_statuses
from tests.fake_kubernetes import OWNER, FakeKubernetes
from tests.kubernetes_rig import WORKERS_POOL as POOL
from tests.kubernetes_rig import exit_of, fleet_on, names, register, sees, spawn, states, wait_for_state

HOUR = 3600.0
DRAINED = 30 + GRACE_SECONDS + NODE_SECONDS


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    fake = FakeKubernetes()
    yield fake
    fake.close()


@pytest.fixture
def fleet(server: FakeKubernetes, tmp_path: Path) -> Iterator[KubernetesFleet]:
    made = fleet_on(server, tmp_path)
    yield made
    made.close()


def test_a_slow_pull_is_waited_for(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.PULLING)
    for minute in range(1, 60):
        fleet.observe([], minute * 60.0)
        assert fleet.poll(minute * 60.0) == []
    assert (states(fleet), fleet.trouble(POOL)) == (["starting"], "")
    server.set(name, pod_statuses.RUNNING)
    sees(fleet, lambda: bool(fleet._members[name].pod and fleet._members[name].pod.is_running), HOUR, "the container")
    assert [start.seconds for start in fleet.observe([WorkerRecord(name, "idle")], HOUR + 5)] == [HOUR + 5]
    assert (states(fleet), len(server.pods)) == (["idle"], 1)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (pod_statuses.PULL_BACKS_OFF, "ImagePullBackOff: Back-off pulling image"),
        (pod_statuses.UNSCHEDULABLE, "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
        (pod_statuses.NO_SECRET, 'secret "promptq-redis" not found'),
    ],
    ids=["image", "node", "secret"],
)
def test_what_hinders_a_pod_is_told_and_no_further_one_is_made(
    server: FakeKubernetes, fleet: KubernetesFleet, status: pod_statuses.Status, words: str
) -> None:
    name = spawn(fleet)
    server.set(name, status)
    sees(fleet, lambda: words in fleet.trouble(POOL), HOUR, "the trouble")
    assert fleet.trouble(POOL).startswith(name)
    fleet.observe([], HOUR)
    assert (states(fleet), fleet.backs_off(POOL)) == (["starting"], False)
    server.set(name, pod_statuses.RUNNING)
    sees(fleet, lambda: fleet.trouble(POOL) == "", HOUR, "the trouble to end")


def test_an_evicted_worker_is_replaced_at_once(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    register(fleet, 1.0, finished=1)
    server.set(name, pod_statuses.EVICTED)
    end = exit_of(fleet, 2.0)
    assert (end.name, end.reason, end.is_certain) == (name, "evicted", True)
    assert "low on resource: memory" in end.words
    assert fleet.spawn(1, POOL, 2.0) == 1
    assert name not in server.pods, "an evicted pod's object stays until somebody deletes it"


def test_a_drained_nodes_worker_drains_and_is_nobodys_crash(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.DRAINED)
    register(fleet, 1.0)
    server.answer("DELETE", f"/api/v1/namespaces/prompts/pods/{name}", {}, None)
    wait_for_state(fleet, name, "draining", 2.0)
    server.finish(
        name, pod_statuses.disrupted(pod_statuses.FINISHED, "EvictionByEvictionAPI", "Eviction API: evicting")
    )
    end = exit_of(fleet, 3.0)
    assert (end.reason, end.code, end.is_certain) == ("evicted", 0, True)


def test_a_crash_loop_backs_off_and_tells_the_last_words(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    now = 0.0
    for wait in (1.0, 2.0, 4.0):
        name = spawn(fleet, now)
        server.set(name, pod_statuses.crashed())
        end = exit_of(fleet, now)
        assert (end.reason, end.code, end.words) == ("crashed", 1, "OSError: the disk is on fire")
        assert "the disk is on fire" in fleet.trouble(POOL)
        assert (fleet.retry_in(POOL, now), fleet.spawn(3, POOL, now)) == (wait, 0)
        now += wait
    assert (list(server.pods), names(fleet)) == ([], []), "no dead pod is left"
    name = spawn(fleet, now)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, now + 1, finished=1)
    assert (fleet.trouble(POOL), fleet.spawn(2, POOL, now + 1)) == ("", 2)


def test_a_node_that_is_gone_takes_no_worker_for_certain(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    """Its pods stay, told to end by the taint manager, as long as its kubelet does not answer."""
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0, finished=3)
    server.set(name, pod_statuses.TAINTED)
    server.answer("DELETE", f"/api/v1/namespaces/prompts/pods/{name}", {}, None)
    wait_for_state(fleet, name, "draining", 40.0)
    assert fleet.spawn(1, POOL, 40.0) == 1, "another one starts meanwhile"
    fleet.observe([], 41.0)
    fleet.observe([], 41.0 + HOUR)
    end = exit_of(fleet, 41.0 + HOUR)
    assert (end.name, end.reason, end.is_certain) == (name, "node_lost", False)
    assert not fleet.backs_off(POOL)


def test_the_collector_of_a_deleted_nodes_pods_is_believed_too(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0, finished=3)
    server.finish(name, pod_statuses.NODE_DELETED)
    end = exit_of(fleet, 2.0)
    assert (end.reason, end.is_certain, fleet.backs_off(POOL)) == ("node_lost", False, False)


def test_a_silent_worker_on_a_silent_node_is_let_go(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0)
    fleet.observe([], 2.0)
    fleet.observe([], 2.0 + 60)
    assert server.pods[name]["metadata"]["deletionGracePeriodSeconds"] == 1
    assert fleet.poll(63.0) == []
    end = exit_of(fleet, 62.0 + NODE_SECONDS)
    assert (end.reason, end.is_certain) == ("unresponsive", False)


def test_a_worker_that_will_not_drain_is_ended_by_its_node(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0, finished=1)
    fleet.retire([name], 2.0)
    assert server.pods[name]["metadata"]["deletionGracePeriodSeconds"] == 30 + GRACE_SECONDS
    server.finish(name, pod_statuses.KILLED)
    assert exit_of(fleet, 2.0 + DRAINED - 1).reason == "drain_timeout"


def test_pods_are_owned_labelled_and_given_their_gpus(server: FakeKubernetes, tmp_path: Path) -> None:
    fleet = fleet_on(server, tmp_path, most=4, gpus=2)
    assert fleet.spawn(9, "big", 0.0) == 2, "four GPUs, two for each"
    pods = list(server.pods.values())
    fleet.close()
    assert [one["uid"] for one in pods[0]["metadata"]["ownerReferences"]] == ["0c5e-owner"]
    assert pods[0]["metadata"]["labels"]["promptq/fleet"] == OWNER
    assert pods[0]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_a_new_template_replaces_one_worker_after_another(
    server: FakeKubernetes, fleet: KubernetesFleet, tmp_path: Path
) -> None:
    first, second = spawn(fleet), spawn(fleet)
    for name in (first, second):
        server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0, finished=1)
    server.on_sigterm = lambda name: server.finish(name, pod_statuses.FINISHED)
    fleet.prepare(2, 20.0)
    assert states(fleet) == ["idle", "idle"], "nothing has changed"
    path = tmp_path / "worker.yaml"
    path.write_text(path.read_text().replace(pod_statuses.IMAGE, "registry.example/promptq-worker:0.4"))
    fleet.prepare(2, 40.0)
    assert states(fleet) == ["draining", "idle"]
    assert exit_of(fleet, 41.0).reason == "retired"
    third = spawn(fleet, 42.0)
    fleet.prepare(2, 60.0)
    assert states(fleet) == ["idle", "starting"], "the next one waits for the first one's heir"
    register(fleet, 61.0, finished=1)
    fleet.prepare(2, 80.0)
    assert [worker.name for worker in fleet.roster() if worker.state == "draining"] == [second]
    assert server.pods[third]["spec"]["containers"][0]["image"].endswith(":0.4")
