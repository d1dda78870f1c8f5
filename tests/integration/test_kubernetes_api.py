"""What an API server does to a fleet of pods: it refuses, breaks off, forgets, and has another leader's pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.fleets.kubernetes.fleet import KubernetesFleet
from tests import pod_statuses
from tests.fake_kubernetes import FakeKubernetes, Refusal
from tests.kubernetes_rig import WORKERS_POOL as POOL
from tests.kubernetes_rig import exit_of, fleet_on, names, register, spawn, states
from tests.processes import wait_until


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


def test_a_name_that_is_taken_is_tried_under_another(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    server.fail("POST", Refusal(409, "AlreadyExists", 'pods "worker-1" already exists'))
    assert fleet.spawn(2, POOL, 0.0) == 2
    assert (len(server.pods), fleet.trouble(POOL), fleet.backs_off(POOL)) == (2, "", False)


def test_a_server_that_asks_for_time_gets_it(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    server.fail("POST", Refusal(429, "TooManyRequests", "the server has received too many requests", retry_after=7))
    assert fleet.spawn(2, POOL, 0.0) == 0
    assert (fleet.backs_off(POOL), fleet.retry_in(POOL, 0.0)) == (True, 7.0)
    assert "too many requests" in fleet.trouble(POOL)
    asked = len(server.asked)
    assert (fleet.spawn(2, POOL, 6.9), len(server.asked)) == (0, asked)
    assert fleet.spawn(2, POOL, 7.0) == 1
    assert fleet.spawn(1, POOL, 7.0) == 1
    assert (fleet.trouble(POOL), fleet.backs_off(POOL), len(server.pods)) == ("", False, 2)


@pytest.mark.parametrize("code", [409, 429, 500])
def test_a_worker_is_told_to_go_however_often_the_server_refuses(
    server: FakeKubernetes, fleet: KubernetesFleet, code: int
) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    register(fleet, 1.0, finished=1)
    server.on_sigterm = lambda name: server.finish(name, pod_statuses.FINISHED)
    server.fail("DELETE", *(Refusal(code, "Any", "not now") for _ in range(3)))
    fleet.retire([name], 2.0)
    assert states(fleet) == ["draining"]
    now = 2.0
    while (wait := fleet.retry_in(POOL, now)) is not None:
        now += wait
        ends = fleet.poll(now)
    assert now == 2.0 + 1 + 2 + 4
    assert (ends or [exit_of(fleet, now)])[0].reason == "retired"
    assert list(server.pods) == []


def test_a_full_quota_is_the_pools_own_trouble(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    quota = Refusal(403, "Forbidden", 'pods "worker-1" is forbidden: exceeded quota: gpus, requested: 1, used: 8')
    server.fail("POST", quota)
    assert fleet.spawn(3, POOL, 0.0) == 0
    assert ("exceeded quota" in fleet.trouble(POOL), fleet.trouble("other")) == (True, "")
    assert (fleet.spawn(1, "other", 0.0), fleet.spawn(1, POOL, 0.0), fleet.spawn(3, POOL, 1.0)) == (1, 0, 1)


def test_a_watch_that_breaks_goes_on_where_it_was(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    name = spawn(fleet)
    wait_until(lambda: server.watches == 1)
    server.fail("WATCH", Refusal(500, "InternalError", "etcdserver: leader changed"))
    server.cut_watches()
    server.finish(name, pod_statuses.crashed())
    assert exit_of(fleet, 1.0).reason == "crashed"
    assert server.lists == 1, "nothing was listed anew"


def test_a_watch_that_is_too_old_begins_anew_with_a_list(server: FakeKubernetes, fleet: KubernetesFleet) -> None:
    gone, stays = spawn(fleet), spawn(fleet)
    wait_until(lambda: server.watches == 1)
    with server.still():
        server.cut_watches()
        server.remove(gone)
        server.set(stays, pod_statuses.RUNNING)
        server.compact()
    end = exit_of(fleet, 1.0)
    assert (end.name, end.is_certain) == (gone, True), "it had no node yet"
    assert (names(fleet), server.lists) == ([stays], 2)


def test_the_next_leader_takes_over_what_is_there_and_makes_none_before(
    server: FakeKubernetes, fleet: KubernetesFleet, tmp_path: Path
) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    server.fail("GET", Refusal(500, "InternalError", "not yet"), Refusal(500, "InternalError", "not yet"))
    heir = fleet_on(server, tmp_path)
    assert (names(heir), heir.observe([WorkerRecord(name, "busy")], 1.0), states(heir)) == ([name], [], ["busy"])
    assert heir.spawn(1, POOL, 1.0) == 1
    heir.close()


def test_nothing_is_made_while_the_pods_that_there_are_are_unknown(server: FakeKubernetes, tmp_path: Path) -> None:
    server.fail("GET", *(Refusal(403, "Forbidden", "cannot list resource pods") for _ in range(99)))
    fleet = fleet_on(server, tmp_path, wait_seconds=0.1)
    assert (fleet.spawn(1, POOL, 0.0), server.pods) == (0, {})
    assert "cannot list resource pods" in fleet.trouble(POOL)
    fleet.close()


def test_a_worker_that_the_last_leader_told_to_go_has_retired(
    server: FakeKubernetes, fleet: KubernetesFleet, tmp_path: Path
) -> None:
    name = spawn(fleet)
    server.set(name, pod_statuses.RUNNING)
    fleet.retire([name], 1.0)
    heir = fleet_on(server, tmp_path)
    assert (names(heir), states(heir)) == ([name], ["draining"])
    server.finish(name, pod_statuses.FINISHED)
    assert (exit_of(heir, 2.0).reason, heir.backs_off(POOL)) == ("retired", False)
    heir.close()
