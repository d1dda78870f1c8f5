"""What is read off a pod's object, in each state that a cluster leaves one in."""

from __future__ import annotations

from typing import Any

import pytest

from scaler.fleets.base import REASONS
from scaler.fleets.kubernetes.pods import End, end_of_vanished, read
from tests import pod_statuses as seen


def pod(status: dict[str, Any], node: str = "node-1", **meta: Any) -> dict[str, Any]:
    labels = {"promptq/fleet": "promptq-scaler", "promptq/pool": "Qwen_Qwen3-8B-1f", "promptq/template": "abc"}
    notes = {"promptq/model": "Qwen/Qwen3-8B"}
    return {
        "metadata": {"name": "worker-1", "uid": "u", "labels": labels, "annotations": notes} | meta,
        "spec": {"nodeName": node, "containers": [{"name": "mesh"}, {"name": "worker"}]},
        "status": status,
    }


def test_a_pod_tells_its_pool_and_what_it_was_made_of() -> None:
    state = read(pod(seen.RUNNING))
    assert (state.name, state.uid, state.pool, state.template) == ("worker-1", "u", "Qwen/Qwen3-8B", "abc")
    assert (state.is_running, state.is_leaving, state.trouble, state.end) == (True, False, "", None)


def test_a_pod_that_was_only_just_made_has_no_status() -> None:
    bare = pod({})
    del bare["status"], bare["spec"]["nodeName"]
    state = read(bare)
    assert (state.is_running, state.trouble, state.end) == (False, "", None)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (seen.PENDING, ""),
        (seen.PULLING, ""),
        (seen.UNSCHEDULABLE, f"Unschedulable: {seen.NOT_A_GPU}"),
        (seen.PULL_FAILS, f"container worker: ErrImagePull: {seen.PULL}"),
        (seen.PULL_BACKS_OFF, "container worker: ImagePullBackOff: Back-off pulling image"),
        (seen.NO_SECRET, 'container worker: CreateContainerConfigError: secret "promptq-redis" not found'),
        (seen.SIDECAR_LOOPS, "container proxy: CrashLoopBackOff: exited with code 1: no certificate"),
    ],
)
def test_what_hinders_a_start_is_told_with_its_reason(status: dict[str, Any], words: str) -> None:
    state = read(pod(status))
    assert state.trouble.startswith(words)
    assert bool(state.trouble) == bool(words)
    assert (state.is_running, state.end) == (False, None)


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (seen.FINISHED, End("exited", 0, "", True)),
        (seen.crashed(), End("crashed", 1, "OSError: the disk is on fire", True)),
        (seen.crashed(2, "PROMPTQ_MODEL: no such folder"), End("settings", 2, "PROMPTQ_MODEL: no such folder", True)),
        (seen.crashed(5, "no GPU"), End("engine_broken", 5, "no GPU", True)),
        (seen.OUT_OF_MEMORY, End("killed", -9, "OOMKilled", True)),
        (seen.EVICTED, End("evicted", -9, f"TerminationByKubelet: {seen.LOW_MEMORY.strip()}", True)),
        (seen.NODE_DELETED, End("node_lost", None, "DeletionByPodGC: PodGC: node no longer exists", False)),
    ],
)
def test_how_a_worker_ended(status: dict[str, Any], end: End) -> None:
    assert read(pod(status)).end == end
    assert end.reason in REASONS


def test_a_pod_that_a_node_refused_never_ran() -> None:
    end = read(pod(seen.REJECTED)).end
    assert end is not None
    assert (end.reason, end.code) == ("crashed", None)
    assert end.words.startswith("OutOfnvidia.com/gpu: Pod was rejected")


def test_a_sidecar_that_ends_is_not_the_worker() -> None:
    running = seen.status("Running", seen.container(seen.terminated(1), "mesh"), seen.RUNNING["containerStatuses"][0])
    assert read(pod(running)).end is None
    over = seen.status("Running", seen.container({"running": {}}, "mesh"), seen.container(seen.terminated(0)))
    assert read(pod(over)).end == End("exited", 0, "", True)


@pytest.mark.parametrize(
    ("status", "node", "reason", "is_certain"),
    [
        (seen.RUNNING, "node-1", "evicted", False),
        (seen.TAINTED, "node-1", "node_lost", False),
        (seen.DRAINED, "node-1", "evicted", False),
        (seen.UNSCHEDULABLE, "", "evicted", True),
        (seen.FINISHED, "node-1", "exited", True),
    ],
)
def test_only_a_node_can_say_that_a_worker_does_not_run_any_more(
    status: dict[str, Any], node: str, reason: str, is_certain: bool
) -> None:
    end = end_of_vanished(pod(status, node))
    assert (end.reason, end.is_certain) == (reason, is_certain)
