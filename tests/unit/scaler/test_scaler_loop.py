"""The scaler's loop in front of a fleet that is only remembered, with the queue on fakeredis."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Status
from promptq.contract.metrics import ScalerMetrics
from promptq.contract.queues import QueueName
from promptq.contract.settings import ScalerSettings
from promptq.queue import measurements
from promptq.queue.observations import QueueState
from promptq.queue.observe import Observer, Snapshot, WorkerRecord
from scaler.fleets.base import FleetCapabilities
from scaler.load import Limits, Load
from scaler.loop import ScalerLoop
from scaler.measured import Measured
from scaler.policy import Outlook
from scaler.pools import Pool, PoolSpec
from scaler.reasons import Reason, words
from scaler.scaling import Scaling
from tests.fakes import NOW, TimedStore, fake_redis, submit
from tests.memory_fleet import MemoryFleet


class Bench:
    """A loop whose steady clock the test moves, a second a round."""

    def __init__(self, least: int = 1, most: int = 4, fleet: MemoryFleet | None = None) -> None:
        settings = ScalerSettings(_env_file=None)
        self.store = TimedStore(fake_redis(), settings)
        self.store.uptime_seconds = lambda: 9999.0  # type: ignore[method-assign]  # fakeredis says nothing of it
        self.fleet, self.at = fleet or MemoryFleet(most), 1000.0
        self.metrics = ScalerMetrics(CollectorRegistry())
        self.model = settings.default_model
        spec = PoolSpec(self.model, Limits(least, most, slots=2))
        scaling = Scaling(self.fleet, [spec], {"cpu": most}, self.metrics, settings)
        self.loop = ScalerLoop(self.fleet, scaling, self.store, lambda: self.at)
        self.loop.initialize()

    def round(self, count: int = 1) -> None:
        for _ in range(count):
            self.at += 1.0
            self.loop.loop(NOW)

    def register(self, *names: str) -> None:
        """As a worker's heartbeat does."""
        keys = self.store.keys
        for name in names:
            self.store.client.sadd(keys.workers_of("default"), keys.worker(name))
            self.store.client.hset(
                keys.worker(name),
                mapping={"state": "idle", "slots": 2, "metrics_url": "http://h:1", "model": self.model},
            )

    def decisions(self, action: str, reason: str) -> float:
        return self.metrics.decisions.labels(self.model, action, reason)._value.get()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_least_number_is_started_and_then_kept(bench: Bench) -> None:
    bench.round()
    assert [worker.state for worker in bench.fleet.roster()] == ["starting"]
    bench.register("memory-0")
    bench.round(3)
    assert [worker.state for worker in bench.fleet.roster()] == ["idle"]
    assert bench.decisions("up", "below_min") == 1
    assert bench.decisions("hold", "steady") == 3
    assert bench.fleet.prepared == [1, 1, 1, 1]


def test_a_backlog_brings_workers_up_to_the_most(bench: Bench) -> None:
    bench.round()
    bench.register("memory-0")
    for number in range(20):
        submit(bench.store, f"p{number}", cache=False)
    bench.round(2)
    assert len(bench.fleet.roster()) == 4


def test_the_jobs_of_a_worker_that_was_seen_to_end_are_taken_back_at_once(bench: Bench) -> None:
    bench.round()
    bench.register("memory-0")
    job = submit(bench.store, "p").job
    bench.store.claim("memory-0", 1)
    bench.fleet.die("memory-0")
    bench.round()
    assert bench.store.get(job.id).status is Status.QUEUED
    assert bench.store.client.smembers(bench.store.keys.workers()) == set()


def test_where_a_fleet_does_not_see_exits_leases_are_waited_for(bench: Bench) -> None:
    bench.fleet.capabilities = FleetCapabilities(sees_exits=False)
    bench.round()
    job = submit(bench.store, "p").job
    bench.store.claim("memory-0", 1)
    bench.fleet.die("memory-0")
    bench.round()
    assert bench.store.get(job.id).status is Status.RUNNING


def test_while_redis_is_away_nothing_moves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.round()

    def away(*_: object, **__: object) -> None:
        raise RedisUnavailable("away")

    monkeypatch.setattr(bench.store, "reap", away)
    bench.round(5)
    assert len(bench.fleet.roster()) == 1
    assert bench.decisions("hold", "held_redis_down") == 5
    assert len(bench.fleet.paused) == 5


def test_a_worker_that_crashed_holds_the_number_back_and_says_why() -> None:
    bench = Bench(fleet=MemoryFleet(crashes=True))
    bench.round()
    bench.at -= 0.5
    bench.round()
    assert bench.decisions("hold", "held_backoff") == 1
    told = Observer(bench.store.client, bench.store.settings).fleet()
    assert told is not None
    assert (told.wanted, told.trouble) == (1, bench.fleet.trouble(bench.model))
    assert "crashed" in told.trouble
    assert told.retry_at == pytest.approx(NOW + 1.0)


def test_where_draining_workers_fill_the_fleet_the_reason_is_theirs() -> None:
    bench = Bench(fleet=MemoryFleet(most=1, drains=False))
    bench.round()
    bench.fleet.retire(["memory-0"], bench.at)
    bench.round()
    assert bench.decisions("hold", "held_draining") == 1


def test_at_its_end_every_worker_is_retired(bench: Bench) -> None:
    bench.round()
    bench.loop.shutdown()
    assert bench.fleet.roster() == []
    assert bench.metrics.worker_exits.labels("retired")._value.get() == 1


@pytest.mark.parametrize(("target", "wanted"), [("auto", 3), (5, 4)])
def test_the_number_of_workers_follows_the_slots_that_they_register(target: float | str, wanted: int) -> None:
    """Six slots each, where one of sixteen was expected."""
    settings = ScalerSettings(_env_file=None, target_jobs_per_worker=target)
    pool = Pool(PoolSpec("m", Limits.of(settings, 0, 9), follows_slots=target == "auto"))
    there = WorkerRecord("w", "idle", model="m", slots=6)
    snapshot = Snapshot([QueueState(QueueName("m", "default"), 18, 0, 0, 0, 0, 0.0)], [there])
    for at in (0.0, 1.0):
        pool.decide(snapshot, [there], at)
    assert pool.decide(snapshot, [there], 2.0).workers == wanted
    assert pool.decide(replace(snapshot, workers=[]), [], 3.0).workers == wanted, "what they had is remembered"


def test_what_was_measured_is_there_for_the_next_scaler() -> None:
    bench = Bench()
    bench.round()
    bench.register("memory-0")
    bench.round(12)
    kept = measurements.recall(bench.store.client, bench.store.keys, [bench.model, "other"])
    assert kept[bench.model]["start_seconds"] == kept[bench.model]["cold_seconds"] == 1
    assert kept[bench.model]["slots"] == 2
    assert list(kept) == [bench.model]
    bench.store.client.hset(bench.store.keys.measured(bench.model), mapping={"service_seconds": "7", "slots": "?"})
    pool = Pool(PoolSpec(bench.model, Limits(0, 9)))
    pool.recall(Measured.of(measurements.recall(bench.store.client, bench.store.keys, [bench.model])[bench.model]))
    pool.decide(Snapshot([], []), [], 0.0)
    record = pool.record("", 0.0)
    assert (record.service_seconds, record.start_seconds, record.slots) == (7, 1, 16)


def test_the_record_says_what_is_expected_and_why() -> None:
    bench = Bench()
    for number in range(8):
        submit(bench.store, f"p{number}", cache=False)
    bench.round()
    told = Observer(bench.store.client, bench.store.settings).fleet()
    assert told is not None
    (pool,) = told.pools
    assert (pool.need, pool.queued["default"], pool.coming) == (4, 8, [10.0] * 4)
    assert pool.why == "there are fewer workers than the least"
    bench.round()
    told = Observer(bench.store.client, bench.store.settings).fleet()
    assert told.pools[0].coming == [9.0] * 4
    bench.round(12)
    told = Observer(bench.store.client, bench.store.settings).fleet()
    assert told.pools[0].coming == [3.0] * 4, "late by as much again"


def test_the_policy_is_told_how_long_all_that_start_still_take() -> None:
    """However many they are, and also of those that an earlier scaler began."""
    pool = Pool(PoolSpec("m", Limits(0, 900)))
    pool.started(64, at=0.0)
    pool.started(400, at=8.0)
    starting = [WorkerRecord(f"w{number}", "starting", model="m") for number in range(500)]
    pool.decide(Snapshot([], []), starting, 9.0)
    assert pool.load.coming_seconds == pytest.approx((64 * 1 + 400 * 9 + 36 * 10) / 500)
    pool.decide(Snapshot([], []), starting[:400], 10.0)
    assert pool.load.coming_seconds == pytest.approx(8), "the first ones have come"
    pool.forget()
    pool.decide(Snapshot([], []), starting[:2], 100.0)
    assert pool.load.coming_seconds == 10


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_words(reason: Reason) -> None:
    assert words(reason, Load(1, 2, 3.0, 4), Outlook())
