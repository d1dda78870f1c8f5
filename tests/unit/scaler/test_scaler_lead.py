"""Several scalers: one leads, the others wait and take over."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import ScalerMetrics
from promptq.contract.settings import ScalerSettings
from promptq.queue.leases import let_go
from promptq.queue.observe import Observer
from promptq.runtime.process_identity import has_ended, this_process
from scaler.leadership import LEASE, Leadership
from scaler.load import Limits
from scaler.loop import ScalerLoop
from scaler.metrics_server import QueueCollector
from scaler.pools import PoolSpec
from scaler.scaling import Scaling
from tests.fakes import NOW, TimedStore, fake_redis
from tests.memory_fleet import MemoryFleet
from tests.processes import wait_until

SETTINGS = ScalerSettings(_env_file=None)


class One:
    """One of several scalers, and its fleet of at least two workers."""

    def __init__(self, store: TimedStore, outlives: bool = False) -> None:
        self.fleet = MemoryFleet(outlives=outlives)
        self.leadership = Leadership(store, SETTINGS)
        self.metrics = ScalerMetrics(CollectorRegistry())
        spec = PoolSpec(SETTINGS.default_model, Limits(2, 3, slots=2))
        scaling = Scaling(self.fleet, [spec], {"cpu": 3}, self.metrics, SETTINGS)
        self.loop = ScalerLoop(self.fleet, scaling, store, lambda: 1000.0, leadership=self.leadership)
        self.loop.initialize()

    def round(self) -> int:
        """The number of its workers after a round."""
        self.loop.loop(NOW)
        return len(self.fleet.roster())

    def leads(self) -> float:
        return self.metrics.leads._value.get()


@pytest.fixture
def store() -> TimedStore:
    store = TimedStore(fake_redis(), SETTINGS)
    store.uptime_seconds = lambda: 9999.0  # type: ignore[method-assign]  # fakeredis says nothing of it
    return store


def end_of_lease(store: TimedStore) -> None:
    store.client.delete(store.keys.lease(LEASE))


def test_one_starts_workers_and_the_other_waits(store: TimedStore) -> None:
    first, second = One(store), One(store)
    assert (first.round(), second.round(), first.round(), second.round()) == (2, 0, 2, 0)
    assert (first.leads(), second.leads()) == (1, 0)
    assert Observer(store.client, SETTINGS).fleet().leader == first.leadership.name
    assert (first.fleet.taken_over, second.fleet.taken_over) == ([1000.0], [])


def test_only_the_leader_tells_what_all_see(store: TimedStore) -> None:
    first, second = One(store), One(store)
    first.round(), second.round()
    collectors = [
        QueueCollector(Observer(store.client, SETTINGS), lambda: False),
        QueueCollector(Observer(store.client, SETTINGS), lambda: True),
    ]
    assert [bool(list(collector.collect())) for collector in collectors] == [False, True]
    assert second.metrics.workers._metrics == {}


def test_the_other_takes_over_when_the_lease_has_ended_and_the_first_steps_down(store: TimedStore) -> None:
    first, second = One(store), One(store)
    first.round(), second.round()
    end_of_lease(store)
    assert second.round() == 2
    assert first.round() == 2  # told to go, and gone when it looks next
    assert first.round() == 0
    assert (first.leads(), second.leads()) == (0, 1)
    assert first.metrics.workers._metrics == {}


def test_workers_that_outlive_their_scaler_stay_when_it_leads_no_more_or_ends(store: TimedStore) -> None:
    first, second = One(store, outlives=True), One(store, outlives=True)
    first.round()
    end_of_lease(store)
    second.round()
    assert [first.round(), first.round()] == [2, 2]
    second.loop.shutdown()
    assert len(second.fleet.roster()) == 2
    assert wait_until(lambda: first.round() == 2 and first.leads())


def test_one_that_does_not_lead_leaves_workers_that_outlive_it_to_the_leader(store: TimedStore) -> None:
    first, second = One(store, outlives=True), One(store, outlives=True)
    first.round()
    end_of_lease(store)
    second.round(), first.round()
    first.fleet.die(first.fleet.roster()[0].name)
    assert first.round() == 2


def test_one_that_ends_lets_the_next_lead_at_once(store: TimedStore) -> None:
    first, second = One(store), One(store)
    first.round(), second.round()
    first.loop.shutdown()
    assert first.fleet.roster() == []
    wait_until(lambda: second.round() == 2)


def test_the_lease_of_a_scaler_of_this_machine_that_died_is_not_waited_for(store: TimedStore) -> None:
    code = "from promptq.runtime.process_identity import this_process; print(this_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    store.client.set(store.keys.lease(LEASE), f"old|{done.stdout.strip()}|token")
    one = One(store)
    wait_until(lambda: one.round() == 2)


@pytest.mark.parametrize("identity", ["", "another-boot pid:[1] 1 1", "nonsense", "a b c d"])
def test_of_another_machines_processes_nobody_can_tell(identity: str) -> None:
    assert not has_ended(identity)


def test_a_process_that_runs_has_not_ended() -> None:
    assert not has_ended(this_process())
    assert has_ended(this_process() + "1")


def test_while_redis_is_away_a_leader_goes_on_and_nobody_else_begins(
    store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = One(store), One(store)
    first.round()

    def away(*_: object) -> object:
        raise RedisUnavailable("away")

    monkeypatch.setattr(store.scripts, "run", away)
    assert (first.round(), second.round(), first.leads()) == (2, 0, 1)
    first.leadership.resign()
    assert not first.leadership.leads


def test_one_that_resigns_gives_up_no_lease_but_its_own(store: TimedStore) -> None:
    first, second = One(store), One(store)
    first.round()
    let_go(store, LEASE, second.leadership._token)
    second.leadership.resign()
    assert second.round() == 0
