"""What is decided of one worker by what its pod and its registration say."""

from __future__ import annotations

from typing import Any

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.fleets.kubernetes.member import UNRESPONSIVE_SECONDS, Member, to_replace
from scaler.fleets.kubernetes.pods import End, PodState


def pod(name: str = "worker-1", template: str = "new", **changes: Any) -> PodState:
    given = {"is_running": True, "is_leaving": False, "trouble": "", "end": None}
    return PodState(name, "uid", "qwen3-8b", template, **given | changes)


def member(state: str = "idle", name: str = "worker-1", **changes: Any) -> Member:
    record = None if state == "starting" else WorkerRecord(name, state)
    return Member(name, "qwen3-8b", 0.0, 0.0, pod=pod(name, **changes), record=record)


def test_nobody_goes_while_all_are_of_the_new_template() -> None:
    assert to_replace([member(), member("busy")], "new") == []


def test_one_goes_at_a_time_and_idle_ones_first() -> None:
    old = [member("busy", "a", template="old"), member("idle", "b", template="old")]
    assert to_replace([*old, member("idle", "c")], "new") == ["b"]
    assert to_replace([*old, member("starting", "c")], "new") == []
    assert to_replace([*old, member("draining", "c")], "new") == []
    assert to_replace(old[:1], "new") == ["a"]


def test_one_that_cannot_start_goes_at_once() -> None:
    stuck = member("starting", "a", template="old", trouble="ImagePullBackOff")
    others = [member("starting", "b", template="old"), member("idle", "c", template="old")]
    assert to_replace([stuck, *others], "new") == ["a"]
    assert to_replace([stuck, others[1]], "new") == ["a", "c"]


def test_only_a_container_that_runs_is_waited_for_with_a_limit() -> None:
    waits, runs = member("starting", is_running=False), member("starting")
    assert [one.fault(601.0, 600.0) for one in (waits, runs)] == ["", "start_timeout"]
    waits.pod = pod()
    assert [waits.fault(at, 600.0) for at in (1200.0, 1201.0)] == ["", "start_timeout"]


def test_silence_counts_from_the_first_look_that_found_nobody() -> None:
    one = member("starting")
    assert one.take_in(WorkerRecord("worker-1", "idle"), 1.0) is True
    assert one.take_in(None, 10.0) is False
    assert one.fault(10.0 + UNRESPONSIVE_SECONDS - 1, 600.0) == ""
    assert one.fault(10.0 + UNRESPONSIVE_SECONDS, 600.0) == "unresponsive"
    one.take_in(WorkerRecord("worker-1", "idle"), 41.0)
    assert one.fault(99.0, 600.0) == ""


@pytest.mark.parametrize(
    ("retired", "sentence", "leaving", "end", "reason"),
    [
        (True, "", True, End("exited", 0, "", True), "retired"),
        (True, "", True, End("killed", -15, "", True), "retired"),
        (True, "", True, End("killed", -9, "", True), "drain_timeout"),
        (True, "", True, End("engine_broken", 5, "", True), "engine_broken"),
        (True, "", True, End("evicted", None, "", False), "retired"),
        (True, "", True, End("node_lost", None, "", False), "node_lost"),
        (False, "", True, End("exited", 0, "", True), "evicted"),
        (False, "", True, End("killed", -9, "", True), "evicted"),
        (False, "", False, End("killed", -9, "", True), "killed"),
        (False, "", False, End("settings", 2, "", True), "settings"),
        (False, "unresponsive", True, End("killed", -9, "", True), "unresponsive"),
    ],
)
def test_why_it_ended_depends_on_who_asked(retired: bool, sentence: str, leaving: bool, end: End, reason: str) -> None:
    one = member("idle", is_leaving=leaving)
    one.retired, one.sentence = retired, sentence
    assert (one.exit(end).reason, one.exit(end).is_certain) == (reason, end.is_certain)
