"""Statuses of pods, in the shapes that kubelets, schedulers and controllers write."""

from __future__ import annotations

from typing import Any

Status = dict[str, Any]

SINCE = "2026-11-27T02:00:00Z"
IMAGE = "registry.example/promptq-worker:0.3"
NOT_A_GPU = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)
PULL = (
    f'failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": unexpected status from HEAD '
    "request: 403 Forbidden"
)
LOW_MEMORY = (
    "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. Container worker was using "
    "4Gi, request is 2Gi, has larger consumption of memory. "
)


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Status:
    told = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": SINCE} | told


def container(state: Status, name: str = "worker", last: Status | None = None, restarts: int = 0) -> Status:
    return {
        "name": name, "image": IMAGE, "imageID": "", "ready": "running" in state, "started": "running" in state,
        "restartCount": restarts, "state": state, "lastState": last or {},
    }  # fmt: skip


def terminated(code: int, reason: str = "", message: str = "") -> Status:
    """`message` has the end of the log, by terminationMessagePolicy."""
    told = {"message": message} if message else {}
    return {
        "terminated": {
            "exitCode": code, "reason": reason or ("Error" if code else "Completed"), "startedAt": SINCE,
            "finishedAt": SINCE, "containerID": "containerd://4f1c",
        } | told
    }  # fmt: skip


def status(phase: str, *containers: Status, conditions: tuple[Status, ...] = (), **more: Any) -> Status:
    given = {"containerStatuses": list(containers)} if containers else {}
    return {"phase": phase, "qosClass": "Burstable", "conditions": list(conditions)} | given | more


def waiting(reason: str, message: str = "", last: Status | None = None, name: str = "worker") -> Status:
    told = {"message": message} if message else {}
    return container({"waiting": {"reason": reason} | told}, name, last, restarts=3 if last else 0)


SCHEDULED = condition("PodScheduled", "True")
PENDING = status("Pending")
UNSCHEDULABLE = status("Pending", conditions=(condition("PodScheduled", "False", "Unschedulable", NOT_A_GPU),))
PULLING = status("Pending", waiting("ContainerCreating"), conditions=(SCHEDULED,))
PULL_FAILS = status("Pending", waiting("ErrImagePull", PULL), conditions=(SCHEDULED,))
PULL_BACKS_OFF = status(
    "Pending", waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {PULL}'),
    conditions=(SCHEDULED,),
)  # fmt: skip
NO_SECRET = status(
    "Pending", waiting("CreateContainerConfigError", 'secret "promptq-redis" not found'), conditions=(SCHEDULED,)
)
RUNNING = status(
    "Running", container({"running": {"startedAt": SINCE}}), conditions=(SCHEDULED, condition("Ready", "True")),
    podIP="10.244.1.7", hostIP="192.168.0.12", startTime=SINCE,
)  # fmt: skip
SIDECAR_LOOPS = status(
    "Pending",
    waiting("PodInitializing"),
    conditions=(SCHEDULED,),
    initContainerStatuses=[
        waiting(
            "CrashLoopBackOff",
            "back-off 40s restarting failed container=proxy pod=worker-1_default(1b9d)",
            terminated(1, message="listening\nno certificate\n"),
            "proxy",
        )
    ],
)
FINISHED = status("Succeeded", container(terminated(0)), conditions=(SCHEDULED,))
OUT_OF_MEMORY = status("Failed", container(terminated(137, "OOMKilled")), conditions=(SCHEDULED,))
KILLED = status("Failed", container(terminated(137)), conditions=(SCHEDULED,))
EVICTED = status(
    "Failed", container(terminated(137)), reason="Evicted", message=LOW_MEMORY,
    conditions=(condition("DisruptionTarget", "True", "TerminationByKubelet", LOW_MEMORY), SCHEDULED),
)  # fmt: skip
REJECTED = status(
    "Failed", reason="OutOfnvidia.com/gpu",
    message="Pod was rejected: Node didn't have enough resource: nvidia.com/gpu, requested: 1, used: 1, capacity: 1",
)  # fmt: skip


def crashed(code: int = 1, log: str = "Traceback (most recent call last):\nOSError: the disk is on fire\n") -> Status:
    return status("Failed", container(terminated(code, message=log)), conditions=(SCHEDULED,))


def disrupted(before: Status, reason: str, message: str) -> Status:
    """As it was, and about to be ended by the cluster."""
    return before | {"conditions": [*before["conditions"], condition("DisruptionTarget", "True", reason, message)]}


TAINTED = disrupted(RUNNING, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
DRAINED = disrupted(RUNNING, "EvictionByEvictionAPI", "Eviction API: evicting")
FINISHED_BY_DRAIN = disrupted(FINISHED, "EvictionByEvictionAPI", "Eviction API: evicting")
NODE_DELETED = disrupted(RUNNING, "DeletionByPodGC", "PodGC: node no longer exists") | {"phase": "Failed"}


def ended(code: int) -> Status:
    """The container has ended with a code, and so has the pod."""
    return status("Failed" if code else "Succeeded", container(terminated(code)), conditions=(SCHEDULED,))
