"""What a worker notes of its runs, and the spans that it makes of it."""

from __future__ import annotations

from typing import Any

from gpu_worker.claim_conversion import Run
from gpu_worker.run_traces import RunTraces, phases_of
from promptq.contract.call import JobContext
from promptq.contract.job import JobError, Status
from promptq.contract.queues import QueueName
from promptq.queue.records import Claim, Ending
from promptq.runtime.traces import Phase, Traces, Trail
from tests.fakes import success

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept(Traces):
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.trails: list[Trail] = []

    def record(self, trail: Trail) -> None:
        self.trails.append(trail)


class Clock:
    """Steady seconds that a test sets; the wall is 1,000 ahead of them."""

    now = 0.0

    def steady(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1000


def a_claim(**fields: Any) -> Claim:
    own = {"execution": "e", "waited_seconds": 5.0, "context": JobContext(traceparent=PARENT)} | fields
    return Claim("job", QueueName("m", "default"), **own)


def noted() -> tuple[RunTraces, Kept, Clock]:
    kept, clock = Kept(), Clock()
    return RunTraces(kept, {"promptq.worker": "w"}, clock.steady, clock.wall), kept, clock


def test_the_phases_of_a_run_follow_each_other_without_a_gap() -> None:
    traces, kept, clock = noted()
    claim = a_claim()
    clock.now = 10.0
    traces.claimed([claim])
    traces.started(run := Run(claim, 10.5))
    run.first_token_at, run.last_token_at = 11.0, 13.0
    clock.now = 13.25
    traces.stored([success(claim)], [True])
    (trail,) = kept.trails
    assert trail.traceparent == PARENT
    assert [(phase.name, phase.begun, phase.ended) for phase in trail.phases] == [
        ("wait", 1005.0, 1010.0),
        ("claim", 1010.0, 1010.5),
        ("prefill", 1010.5, 1011.0),
        ("decode", 1011.0, 1013.0),
        ("store", 1013.0, 1013.25),
    ]
    assert trail.attributes["promptq.worker"] == "w"
    assert trail.attributes["promptq.end"] == "succeeded"
    assert trail.attributes["promptq.job.id"] == "job"
    assert not trail.error


def test_a_failure_is_the_error_of_its_run_and_a_lost_claim_is_said() -> None:
    traces, kept, _ = noted()
    failed = Ending(a_claim(), Status.FAILED, error=JobError("timeout", "too long"))
    for is_written in (True, False):
        traces.claimed([failed.claim])
        traces.stored([failed], [is_written])
    assert [trail.error for trail in kept.trails] == ["timeout", "timeout"]
    assert [trail.attributes["promptq.end"] for trail in kept.trails] == ["failed", "fenced"]


def test_what_is_let_go_is_recorded_once_and_nothing_is_kept_of_it() -> None:
    traces, kept, _ = noted()
    claim = a_claim()
    traces.claimed([claim])
    traces.started(Run(claim, 0.0))
    for _ in range(2):
        traces.let_go([claim])
    assert [trail.attributes["promptq.end"] for trail in kept.trails] == ["let go"]
    assert not traces._arrived
    assert not traces._runs


def test_phases_end_where_a_run_was_cut() -> None:
    claim = a_claim()
    assert phases_of(claim, 10, None, 12, is_ended=False)[-1] == Phase("claim", 10, 12)
    run = Run(claim, 11)
    assert phases_of(claim, 10, run, 12, is_ended=False)[-1] == Phase("prefill", 11, 12)
    run.first_token_at = run.last_token_at = 12
    assert phases_of(claim, 10, run, 14, is_ended=False)[-1] == Phase("decode", 12, 14)
