"""What a pod's object says of the worker in it. Pure: the object as the API server gives it, a state out."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scaler.fleets.exits import reason_of

Pod = Mapping[str, Any]

CONTAINER: Final = "worker"
"""What the worker's container is called; in a template without such a name, the first one is it."""
FLEET_LABEL: Final = "promptq/fleet"
POOL_LABEL: Final = "promptq/pool"
TEMPLATE_LABEL: Final = "promptq/template"
MODEL_ANNOTATION: Final = "promptq/model"

STUCK: Final = frozenset(
    [
        "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
        "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable", "RunContainerError",
    ]
)  # fmt: skip
"""Reasons of a waiting container that do not pass by themselves."""
_DISRUPTIONS: Final = {
    "DeletionByPodGC": "node_lost", "DeletionByTaintManager": "node_lost",
    "EvictionByEvictionAPI": "evicted", "PreemptionByScheduler": "evicted", "TerminationByKubelet": "evicted",
}  # fmt: skip
_POD_REASONS: Final = {
    "Evicted": "evicted", "NodeShutdown": "evicted", "Preempting": "evicted", "Shutdown": "evicted",
    "Terminated": "evicted", "NodeLost": "node_lost",
}  # fmt: skip
_SIGNALS: Final = {int(number) for number in signal.Signals}


@dataclass(frozen=True, slots=True)
class End:
    """How a pod's worker ended.

    Attributes:
        reason: one of the fleets' REASONS, as if nobody here had asked for the end.
        code: the exit status, negative for a signal; None: nobody saw it.
        is_certain: the kubelet says that the container has ended, or it never began.
    """

    reason: str
    code: int | None
    words: str
    is_certain: bool


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod, as far as the fleet cares.

    Attributes:
        pool: the model that it serves.
        template: what it was made of, by its hash.
        is_running: the worker's container has started.
        is_leaving: somebody has told it to end.
        trouble: why it does not start; empty: nothing is known to hinder it.
        end: None while it may still run.
    """

    name: str
    uid: str
    pool: str
    template: str
    is_running: bool
    is_leaving: bool
    trouble: str
    end: End | None


def read(pod: Pod) -> PodState:
    """The state of a pod."""
    meta = pod["metadata"]
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    return PodState(
        name=meta["name"], uid=meta.get("uid", ""),
        pool=notes.get(MODEL_ANNOTATION, labels.get(POOL_LABEL, "")), template=labels.get(TEMPLATE_LABEL, ""),
        is_running="running" in _worker_state(pod), is_leaving="deletionTimestamp" in meta,
        trouble=_trouble(pod), end=_end(pod),
    )  # fmt: skip


def end_of_vanished(pod: Pod) -> End:
    """How a worker ended whose pod is not there any more, by the last that was seen of it."""
    if (end := _end(pod)) is not None:
        return end
    reason, words = _disruption(pod) or ("evicted", "somebody deleted its pod")
    return End(reason, None, words, is_certain=not _is_bound(pod))


def _end(pod: Pod) -> End | None:
    terminated = _worker_state(pod).get("terminated")
    status = pod.get("status") or {}
    if terminated is None and status.get("phase") not in ("Failed", "Succeeded"):
        return None
    code = None if terminated is None else _code(terminated)
    found = _disruption(pod) or _reason_in_status(status)
    if found is None:
        reason = reason_of(code, False) if code is not None else "crashed"
        found = reason, _words(terminated or {}, status)
    is_certain = terminated is not None or status.get("reason") in _POD_REASONS or not _is_bound(pod)
    return End(*found[:1], code, found[1], is_certain=is_certain and found[0] != "node_lost")


def _disruption(pod: Pod) -> tuple[str, str] | None:
    """Why the cluster ended the pod, by the condition that it leaves when it does, in its own words."""
    for condition in _conditions(pod, "DisruptionTarget"):
        if condition.get("status") == "True" and (reason := _DISRUPTIONS.get(condition.get("reason", ""))):
            told = (pod.get("status") or {}).get("message") or condition.get("message", "")
            return reason, _said(condition["reason"], told)
    return None


def _reason_in_status(status: Mapping[str, Any]) -> tuple[str, str] | None:
    reason = status.get("reason", "")
    return (_POD_REASONS.get(reason, "crashed"), _said(reason, status.get("message", ""))) if reason else None


def _trouble(pod: Pod) -> str:
    """Of a pod that has not ended: no node for it, or a container that cannot start."""
    for condition in _conditions(pod, "PodScheduled"):
        if condition.get("status") == "False":
            return _said(condition.get("reason", ""), condition.get("message", ""))
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in STUCK:
            return f"container {status['name']}: " + _said(waiting["reason"], _why_waiting(status, waiting))
    return ""


def _why_waiting(status: Mapping[str, Any], waiting: Mapping[str, Any]) -> str:
    """What a crashed container wrote says more than that it is started again only later."""
    last = (status.get("lastState") or {}).get("terminated")
    if waiting["reason"] != "CrashLoopBackOff" or not last:
        return str(waiting.get("message", ""))
    return f"exited with code {last['exitCode']}: {_last_line(last.get('message', '')) or last.get('reason', '')}"


def _words(terminated: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    line = _last_line(terminated.get("message", "")) or _last_line(status.get("message", ""))
    reason = terminated.get("reason", "")
    return _said(reason, line) if reason not in ("", "Error", "Completed") else line


def _worker_state(pod: Pod) -> Mapping[str, Any]:
    """running, waiting or terminated of the worker's container, whichever it is; empty before there is one."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    name = CONTAINER if CONTAINER in names else names[0]
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    state: Mapping[str, Any] = next((one.get("state") or {} for one in statuses if one["name"] == name), {})
    return state


def _container_statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(kind) or []


def _conditions(pod: Pod, kind: str) -> Sequence[Mapping[str, Any]]:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return [condition for condition in conditions if condition.get("type") == kind]


def _is_bound(pod: Pod) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _code(terminated: Mapping[str, Any]) -> int:
    """A shell tells a signal as 128 and its number, and so do container runtimes."""
    code = int(terminated["exitCode"])
    return 128 - code if code - 128 in _SIGNALS else code


def _said(reason: str, message: str) -> str:
    return f"{reason}: {_last_line(message)}" if message.strip() else reason


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
