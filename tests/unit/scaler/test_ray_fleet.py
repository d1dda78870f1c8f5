"""The fleet on Ray, in front of a cluster in memory; on a real one it runs in tests/extras."""

from __future__ import annotations

import socket

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import Exit
from scaler.fleets.launch import Launch
from scaler.fleets.ray.evidence import is_gone
from scaler.fleets.ray.fleet import RayFleet, RayFleetSettings
from scaler.fleets.ray.order import Needs, Order
from scaler.fleets.ray.pending import why_pending
from scaler.fleets.ray.protocol import Died
from tests.fake_ray import FakeCluster

POOL, GPU_POOL = "small", "org/big"
SETTINGS = RayFleetSettings(
    {"cpu": 4, "gpu": 4},
    {POOL: Launch(gpus=0), GPU_POOL: Launch(units=2, resource="gpu", gpus=2, resources={"CPU": 8, "A100": 0.5})},
)


class Bench:
    """A fleet on a cluster of one node."""

    def __init__(self, gone: bool = False) -> None:
        self.cluster = FakeCluster({"CPU": 4.0})
        self.fleet = self.another(gone)

    def another(self, gone: bool = False) -> RayFleet:
        fleet = RayFleet(self.cluster, SETTINGS, lambda name, _: Order(name, "1"), lambda _: gone)
        fleet.take_over(0.0)
        return fleet

    def started(self, pool: str = POOL) -> str:
        """The name of a worker that has a node, and has registered."""
        self.fleet.spawn(1, pool, 0.0)
        self.cluster.place()
        self.fleet.poll(1.0)
        name = self.fleet.roster()[-1].name
        self.fleet.observe([WorkerRecord(name, "busy", metrics_url="http://10.0.0.1:9", jobs_finished=1)], 2.0)
        return name


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_ray_cannot_place_is_asked_for_and_says_what_it_waits_for(bench: Bench) -> None:
    assert bench.fleet.spawn(2, GPU_POOL, 0.0) == 2
    bench.fleet.poll(1.0)
    (first, _) = bench.fleet.roster()
    assert (first.state, first.model) == ("starting", GPU_POOL)
    assert first.trouble == ("waits for Ray: no node has 8 CPU, 2 GPU, 0.5 A100, unless its autoscaler adds one")
    assert bench.cluster.orders[first.name][1] == Needs(8, 2, 0, {"A100": 0.5})
    assert bench.fleet.trouble(GPU_POOL) == ""
    assert bench.fleet.spawn(1, GPU_POOL, 1.0) == 0  # the settings let there be four GPUs


def test_the_wait_for_a_node_counts_against_no_worker(bench: Bench) -> None:
    bench.fleet.spawn(1, POOL, 0.0)
    bench.fleet.poll(10_000.0)
    bench.fleet.observe([], 10_000.0)
    assert bench.cluster.told == []
    bench.cluster.place()
    bench.fleet.poll(10_001.0)
    assert (bench.fleet.roster()[0].trouble, bench.fleet.roster()[0].host) == ("", "10.0.0.1")
    bench.fleet.observe([], 10_500.0)
    assert bench.cluster.told == []
    bench.fleet.observe([], 10_602.0)
    assert [sentence for _, sentence in bench.cluster.told] == ["start_timeout"]


def test_who_waits_for_a_node_goes_without_a_drain(bench: Bench) -> None:
    bench.fleet.spawn(1, POOL, 0.0)
    (worker,) = bench.fleet.roster()
    bench.fleet.retire([worker.name], 1.0)
    assert bench.cluster.told == [(worker.name, "destroy")]
    assert [(end.reason, end.is_certain) for end in bench.fleet.poll(2.0)] == [("retired", True)]


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_that_goes_with_its_node_is_no_crash_and_is_dead_where_that_can_be_shown(gone: bool) -> None:
    bench = Bench(gone)
    name = bench.started()
    bench.cluster.end(Died(name, "the actor's node was terminated unexpectedly"))
    (end,) = bench.fleet.poll(3.0)
    assert (end.reason, end.is_certain) == ("node_lost", gone)
    assert str(end) == f"{name} went with its node: the actor's node was terminated unexpectedly"
    assert (bench.fleet.trouble(POOL), bench.fleet.backs_off(POOL)) == ("", False)
    assert bench.fleet.spawn(1, POOL, 3.0) == 1


def test_an_actor_that_cannot_be_made_is_trouble(bench: Bench) -> None:
    bench.fleet.spawn(1, POOL, 0.0)
    name = bench.fleet.roster()[0].name
    bench.cluster.end(Died(name, "RuntimeError: 10.0.0.1 has promptq 1, and the scaler 2"))
    (end,) = bench.fleet.poll(1.0)
    assert (end.reason, end.is_certain) == ("crashed", True)
    assert "has promptq 1" in bench.fleet.trouble(POOL)
    assert bench.fleet.backs_off(POOL)


def test_the_next_leader_finds_the_workers_and_lets_go_who_was_told_to(bench: Bench) -> None:
    stays, goes = bench.started(), bench.started(GPU_POOL)
    bench.fleet.retire([goes], 3.0)
    after = bench.another()
    assert {worker.name: worker.model for worker in after.roster()} == {stays: POOL, goes: GPU_POOL}
    after.poll(5.0)
    after.observe([WorkerRecord(stays, "idle"), WorkerRecord(goes, "draining")], 5.0)
    assert {worker.name: worker.state for worker in after.roster()} == {stays: "idle", goes: "draining"}
    assert after.spawn(2, GPU_POOL, 5.0) == 1
    bench.cluster.told.clear()
    after.retire([goes], 6.0)
    assert bench.cluster.told == []
    after.poll(50.0)
    assert bench.cluster.told == [(goes, "drain_timeout")]


def test_a_worker_whose_actor_does_not_answer_is_destroyed(bench: Bench) -> None:
    name = bench.started()
    bench.fleet.retire([name], 3.0)
    bench.fleet.poll(39.0)
    bench.fleet.poll(40.0)
    assert bench.cluster.told == [(name, "retire"), (name, "drain_timeout")]
    assert [end.reason for end in bench.fleet.poll(44.5)] == ["drain_timeout"]
    assert bench.cluster.told[-1] == (name, "destroy")


def test_an_exit_that_the_actor_saw_is_told_as_it_is(bench: Bench) -> None:
    name = bench.started()
    bench.cluster.end(Exit(name, "engine", 4, "no such model"))
    (end,) = bench.fleet.poll(3.0)
    assert (end.reason, end.is_certain, bench.fleet.roster()) == ("engine", True, [])


@pytest.mark.parametrize(
    ("nodes", "free", "words"),
    [
        ([], {}, "no node has 1 CPU, 2 GPU, unless its autoscaler adds one"),
        ([{"CPU": 8, "GPU": 1}], {"CPU": 8, "GPU": 1}, "no node has 1 CPU, 2 GPU, unless its autoscaler adds one"),
        ([{"CPU": 8, "GPU": 2}], {"CPU": 7}, "it needs 1 CPU, 2 GPU, and 0 GPU is free"),
        ([{"CPU": 8, "GPU": 2}], {"CPU": 8, "GPU": 2}, "to start it on a node with 1 CPU, 2 GPU"),
    ],
)
def test_why_a_worker_has_no_node_is_said_in_resources(
    nodes: list[dict[str, float]], free: dict[str, float], words: str
) -> None:
    assert words in why_pending(Needs(gpus=2), nodes, free)


def test_only_a_machine_that_answers_shows_that_a_worker_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        assert not is_gone(url)
    assert is_gone(url)
    assert not is_gone("")
    assert not is_gone("http://192.0.2.255:9/metrics")  # nobody answers there
