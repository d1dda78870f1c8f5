"""The worker's loop with its parts given to it: the real echo engine, claims and leases on fakeredis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gpu_worker.engines.base import StepResult, StepStats
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.engines.kv_memory import KvTokens
from gpu_worker.preemption import Preemption
from promptq.contract.job import Status
from tests.fakes import TimedStore, submit
from tests.processes import wait_until
from tests.unit.worker.bench import Bench, Forgetful


@pytest.fixture
def bench(fake_store: TimedStore) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(fake_store, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_jobs_become_rows_and_their_ends_are_stored(bench: Callable[..., Bench]) -> None:
    it = bench()
    ids = [it.submit(f"say {number} words") for number in range(6)]
    assert it.until(*ids) == [Status.SUCCEEDED] * 6
    done = [it.store.get(job_id) for job_id in ids]
    assert [job.result.text for job in done if job.result] == [f"say {number} words" for number in range(6)]
    assert [job.result.run_seconds for job in done if job.result] == pytest.approx([0.3] * 6, abs=0.1)


def test_the_sink_gets_every_piece_of_text_in_order(bench: Callable[..., Bench]) -> None:
    it = bench()
    first, second = it.submit("one two three"), it.submit("four five")
    it.until(first, second)
    assert it.sink.texts == {first: ["one", " two", " three"], second: ["four", " five"]}


def test_a_sink_that_fails_costs_no_text_and_no_job(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.sink.fails = True
    job_id = it.submit("one two three")
    assert it.until(job_id) == [Status.SUCCEEDED]
    assert it.sink.texts[job_id] == ["one", " two", " three"]


def test_a_job_that_cannot_run_is_refused_and_its_neighbour_runs(
    bench: Callable[..., Bench], fake_store: TimedStore
) -> None:
    bad = submit(fake_store, "bad", cache=False).job.id
    fake_store.client.hset(fake_store.keys.job(bad), "data", "no call")  # before anybody can claim it
    it = bench()
    good = it.submit("good")
    assert it.until(bad, good) == [Status.FAILED, Status.SUCCEEDED]
    error = it.store.get(bad).error
    assert error is not None
    assert error.type == "invalid_request"


def test_what_the_engine_cannot_do_fails_by_name_and_is_never_ignored(bench: Callable[..., Bench]) -> None:
    it = bench()
    bad, good = it.submit("bad", logit_bias={"5": 1.0}), it.submit("good", min_p=0.5)
    assert it.until(bad, good) == [Status.FAILED, Status.SUCCEEDED]
    error = it.store.get(bad).error
    assert error is not None
    assert (error.type, error.message) == ("invalid_request", "The engine of the model echo cannot do logit_bias.")


def test_a_cancelled_row_ends_with_its_partial_text(bench: Callable[..., Bench]) -> None:
    it = bench()
    job_id = it.submit("one two three four five six seven eight nine ten")
    it.until_running(1)
    it.store.cancel(job_id)
    it.leases.renew_now()
    assert it.until(job_id) == [Status.CANCELLED]
    result = it.store.get(job_id).result
    assert result is not None
    assert "one two three four five six seven eight nine ten".startswith(result.text)


def test_a_lost_row_is_dropped_and_nothing_is_stored_for_it(bench: Callable[..., Bench]) -> None:
    it = bench(slots=1)  # no room to claim the job again
    job_id = it.submit("one two three four five six")
    it.until_running(1)
    it.claim_io.stop_claiming()
    it.store.take_back("w")
    it.leases.renew_now()
    wait_until(lambda: it.loop.round(0.02) or not it.engine.live_rows(), 10)
    assert it.claim_io.held() == []
    assert it.sink.dropped_ids == [job_id]
    assert it.store.get(job_id).status is Status.QUEUED


def test_a_job_that_comes_back_while_its_row_runs_is_not_begun_anew(bench: Callable[..., Bench]) -> None:
    it = bench()
    job_id = it.submit("one two three four five six")
    (claim,) = it.until_running(1)
    it.store.take_back("w")
    it.claim_io.wake()
    wait_until(
        lambda: it.loop.round(0.0) or [c.execution for c in it.claim_io.held()] not in ([claim.execution], []), 10
    )
    assert it.engine.live_rows() == 1
    assert it.until(job_id) == [Status.SUCCEEDED]
    job = it.store.get(job_id)
    assert job.result is not None
    assert (job.attempts, job.result.text) == (2, "one two three four five six")


@pytest.mark.parametrize("fails", [False, True])
def test_a_drain_keeps_the_progress_and_puts_every_job_back_at_once(bench: Callable[..., Bench], fails: bool) -> None:
    it = bench(drain=1e9, pace=1.0)
    ids = [it.submit(f"{number} one two three four five six") for number in range(3)]
    it.until_running(3)
    it.sink.fails, before = fails, it.clock.now
    it.drain()
    jobs = [it.store.get(job_id) for job_id in ids]
    assert [(job.status, job.attempts) for job in jobs] == [(Status.QUEUED, 0)] * 3
    assert [claim.id for claim in it.store.claim("next", 3)] == ids
    assert (it.sink.kept, it.clock.now, it.claim_io.held()) == (1, before, [])


def test_an_engine_that_cannot_resume_finishes_what_it_can(bench: Callable[..., Bench]) -> None:
    it = bench(engine=Forgetful)
    job_id = it.submit("one two three")
    it.until_running(1)
    it.drain()
    assert it.store.get(job_id).status is Status.SUCCEEDED
    wait_until(lambda: it.said.beats[-1:] == [("draining", 0)], 5)


def test_a_drain_without_time_left_puts_jobs_back_unharmed(bench: Callable[..., Bench]) -> None:
    it = bench(drain=0.1, pace=1.0, engine=Forgetful)
    ids = [it.submit(f"{number} one two three four five six") for number in range(3)]
    it.until_running(3)
    it.drain()
    jobs = [it.store.get(job_id) for job_id in ids]
    assert [(job.status, job.attempts) for job in jobs] == [(Status.QUEUED, 0)] * 3
    assert [claim.id for claim in it.store.claim("next", 3)] == ids
    assert it.claim_io.held() == []


def test_a_run_that_takes_too_long_is_timed_by_a_steady_clock(bench: Callable[..., Bench]) -> None:
    it = bench(pace=1.0)
    job_id = it.submit("one two three four five six", timeout_seconds=2.5)
    assert it.until(job_id) == [Status.FAILED]
    job = it.store.get(job_id)
    assert job.error is not None
    assert job.result is not None
    assert (job.error.type, job.result.text) == ("timeout", "one two")


def test_a_cancel_that_comes_late_does_not_hit_the_job_s_next_life(bench: Callable[..., Bench]) -> None:
    it = bench()
    job = it.submit("word " * 10)
    (claim,) = it.until_running(1)
    it.verdicts.add(replace(claim, execution="of-an-earlier-life"), "cancel")
    assert it.until(job) == [Status.SUCCEEDED]


def test_a_row_gives_way_to_a_more_urgent_job_and_goes_on_later(bench: Callable[..., Bench]) -> None:
    it = bench(slots=2, pace=1.0, preemption=Preemption("high"))
    far = it.submit("a b c d e f", priority="low")
    wait_until(lambda: it.loop.round(0.0) or it.sink.texts.get(far))
    begun = it.submit("1 2 3 4 5 6", priority="low")
    it.until_running(2)
    urgent = it.submit("at once", priority="high")
    wait_until(it.claim_io.waiting)
    it.loop.round(0.0)
    wait_until(lambda: it.sink.given_up)
    assert it.until(urgent, far, begun) == [Status.SUCCEEDED] * 3
    assert it.sink.given_up == [begun]
    jobs = [it.store.get(job_id) for job_id in (far, begun, urgent)]
    assert [job.result.text for job in jobs if job.result] == ["a b c d e f", "1 2 3 4 5 6", "at once"]
    assert [(job.attempts, job.result.moves) for job in jobs if job.result] == [(1, 0), (1, 1), (1, 0)]
    labels = {"model": "echo", "reason": "high_over_low"}
    assert it.registry.get_sample_value("promptq_preemptions_total", labels) == 1


class Measured(EchoEngine):
    """Says how full its memory is."""

    def step(self, now: float) -> StepResult:
        return replace(super().step(now), stats=StepStats(kv_tokens=KvTokens(640, 96, 41)))


def test_how_full_the_engine_s_memory_is(bench: Callable[..., Bench]) -> None:
    it = bench()
    it.until(it.submit("a"))
    assert it.registry.get_sample_value("promptq_kv_tokens", {"model": "echo", "state": "capacity"}) is None
    it = bench(engine=Measured)
    it.until(it.submit("a"))
    states = {"capacity": 640, "reserved": 96, "used": 41}
    assert states == {
        state: it.registry.get_sample_value("promptq_kv_tokens", {"model": "echo", "state": state}) for state in states
    }


class Narrow(EchoEngine):
    """Has memory for one row at a time, however many slots it has: the others wait."""

    def crowded_out(self) -> list[str]:
        return list(self._live)[1:]

    def free_slots(self) -> int:
        return 0 if self.crowded_out() else super().free_slots()


def test_a_row_gives_way_to_an_urgent_one_that_waits_for_memory(bench: Callable[..., Bench]) -> None:
    it = bench(slots=8, pace=1.0, preemption=Preemption("high"), engine=Narrow)
    patient = it.submit("a b c d e f", priority="low")
    wait_until(lambda: it.loop.round(0.0) or it.sink.texts.get(patient))
    urgent = it.submit("at once", priority="high")
    wait_until(lambda: it.loop.round(0.0) or it.sink.given_up)
    assert it.sink.given_up == [patient]
    assert it.until(urgent, patient) == [Status.SUCCEEDED] * 2
    assert it.sink.given_up == [patient], "nobody gives way to a row that is less urgent"


def test_a_row_that_is_being_cancelled_keeps_its_partial_text(bench: Callable[..., Bench]) -> None:
    it = bench(slots=1, pace=1.0, preemption=Preemption("high"))
    patient = it.submit("a b c d e f", priority="low")
    wait_until(lambda: it.loop.round(0.0) or it.sink.texts.get(patient))
    it.engine.cancel([patient])
    urgent = it.submit("at once", priority="high")
    wait_until(it.claim_io.waiting)
    assert it.until(patient, urgent) == [Status.CANCELLED, Status.SUCCEEDED]
    job = it.store.get(patient)
    assert job.result is not None
    assert job.result.text.startswith("a")
    assert it.sink.given_up == []
