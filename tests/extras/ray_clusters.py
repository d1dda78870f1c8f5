"""Ray clusters on this machine for tests: a head that has no room, and nodes that come and go."""

from __future__ import annotations

import atexit
import os
from functools import cache
from typing import Any

import ray
from ray.cluster_utils import Cluster

import promptq
from promptq.runtime.programs import HOME
from scaler.fleets.launch import Launch
from scaler.fleets.ray.cluster import RayCluster
from scaler.fleets.ray.fleet import RayFleet, RayFleetSettings
from scaler.fleets.ray.order import Order
from tests.memory_fleet import POOL

QUICK = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}  # fmt: skip
"""So that a node that vanishes is missed within two seconds or so, as docs/ray.md has it."""


def start_cluster(nodes: int, cpus: int) -> Cluster:
    """A head without room, and so many nodes. Whatever it starts finds promptq in this checkout."""
    os.environ["PYTHONPATH"] = HOME
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
    )
    for _ in range(nodes):
        add_node(cluster, cpus)
    return cluster


def add_node(cluster: Cluster, cpus: int) -> Any:
    """One more node; it comes back as what `remove_node` takes."""
    return cluster.add_node(num_cpus=cpus, include_dashboard=False)


@cache
def _shared() -> RayCluster:
    cluster = start_cluster(1, 4)
    atexit.register(cluster.shutdown)
    atexit.register(ray.shutdown)
    return RayCluster(cluster.address, "contract")


def stand_in_fleet(command: tuple[str, ...], most: int) -> RayFleet:
    """A fleet of a cluster that all tests share, whose workers are this command."""
    settings = RayFleetSettings({"cpu": most}, {POOL: Launch(gpus=0)})
    return RayFleet(_shared(), settings, lambda name, _: Order(name, promptq.__version__, command=command))
