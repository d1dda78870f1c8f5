"""The worker's loop with an engine whose server refuses: the real echo engine, which a test has refuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from gpu_worker.engines.base import LostRow, Row, StepResult
from promptq.contract.job import Status
from tests.fakes import TimedStore
from tests.processes import wait_until
from tests.unit.worker.bench import Bench, Forgetful


class Moody(Forgetful):
    """Refuses what it is given while it is in trouble, or loses the rows that it runs."""

    trouble = ""
    loses = False
    given: list[str]

    def free_slots(self) -> int:
        return 0 if self.trouble else super().free_slots()

    def add(self, rows: Sequence[Row]) -> None:
        super().add(rows)
        self.given = [*getattr(self, "given", []), *(row.id for row in rows)]

    def step(self, now: float) -> StepResult:
        if not (self.trouble or self.loses):
            return super().step(now)
        gone = self.preempt(list(self._live))
        if self.loses:
            return StepResult(lost=[LostRow(row_id, "it broke off") for row_id in gone])
        return StepResult(handed_back=gone)


@pytest.fixture
def it(fake_store: TimedStore) -> Iterator[Bench]:
    bench = Bench(fake_store, engine=Moody)
    yield bench
    bench.close()


def in_trouble(it: Bench, trouble: str) -> None:
    it.engine.trouble = trouble  # type: ignore[attr-defined]


def test_what_is_handed_back_waits_unharmed_until_the_trouble_is_over(it: Bench) -> None:
    ids = [it.submit(f"say {number} words") for number in range(6)]
    it.until_running(4)
    in_trouble(it, "it is down")
    wait_until(lambda: it.loop.round(0.0) or not it.claim_io.held(), 10)
    jobs = [it.store.get(job_id) for job_id in ids]
    assert [(job.status, job.attempts) for job in jobs] == [(Status.QUEUED, 0)] * 6
    assert sorted(it.sink.dropped_ids) == sorted(ids[:4])
    it.loop.round(0.05)
    assert not it.claim_io.held(), "nothing is claimed meanwhile"
    in_trouble(it, "")
    assert it.until(*ids) == [Status.SUCCEEDED] * 6
    assert it.engine.given[4:] == ids, "in the order in which they were"  # type: ignore[attr-defined]
    assert {it.store.get(job_id).attempts for job_id in ids} == {1}


def test_the_trouble_is_told_at_once_and_counted(it: Bench) -> None:
    in_trouble(it, "it is down")
    it.loop.round(0.0)
    wait_until(lambda: it.said.troubles[-1:] == ["it is down"])
    assert it.registry.get_sample_value("promptq_upstream_open") == 1
    assert it.registry.get_sample_value("promptq_slots", {"state": "free"}) == 0
    in_trouble(it, "")
    it.loop.round(0.0)
    wait_until(lambda: it.said.troubles[-1:] == [""])
    assert it.registry.get_sample_value("promptq_upstream_open") == 0


def test_a_row_that_is_lost_costs_an_attempt_and_at_last_its_job(it: Bench) -> None:
    job_id = it.submit("say it")
    it.engine.loses = True  # type: ignore[attr-defined]
    assert it.until(job_id) == [Status.FAILED]
    job = it.store.get(job_id)
    assert job.error is not None
    assert (job.error.type, job.attempts) == ("upstream_lost", 3)
    assert it.claim_io.held() == []


def test_a_lost_row_goes_on_anew(it: Bench) -> None:
    job_id = it.submit("say it all")
    it.until_running(1)
    it.engine.loses = True  # type: ignore[attr-defined]
    it.loop.round(0.0)
    it.engine.loses = False  # type: ignore[attr-defined]
    assert it.until(job_id) == [Status.SUCCEEDED]
    job = it.store.get(job_id)
    assert job.result is not None
    assert (job.result.text, job.attempts, job.result.moves) == ("say it all", 2, 1)
