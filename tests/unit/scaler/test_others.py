"""Workers that the scaler did not start count as capacity, and are none of its business otherwise."""

from __future__ import annotations

import pytest

from promptq.contract.queues import QueueName
from promptq.queue.observations import QueueState
from promptq.queue.observe import Snapshot, WorkerRecord
from scaler.load import Limits, Load
from scaler.policy import decide
from scaler.pools import Pool, PoolSpec
from tests.memory_fleet import POOL

LIMITS = Limits(0, 4, slots=4)


def pool(limits: Limits = LIMITS, follows_slots: bool = False) -> Pool:
    return Pool(PoolSpec(POOL, limits, follows_slots=follows_slots))


def snapshot(jobs: int, *workers: WorkerRecord) -> Snapshot:
    return Snapshot([QueueState(QueueName(POOL, "default"), jobs, 0, 0, 0, 0, 0.0)], workers)


def stranger(state: str = "idle", slots: int = 4, trouble: str = "") -> WorkerRecord:
    return WorkerRecord(f"host-{state}-{slots}", state, model=POOL, slots=slots, trouble=trouble)


def wanted(one: Pool, seen: Snapshot, *ours: WorkerRecord) -> int:
    return one.decide(seen, ours, 100.0).workers


def test_what_others_have_slots_for_starts_nobody() -> None:
    assert wanted(pool(), snapshot(4, stranger())) == 0
    assert wanted(pool(), snapshot(5, stranger())) == 1
    assert wanted(pool(), snapshot(12)) == 3


def test_the_least_number_is_kept_with_others_counted() -> None:
    limits = Limits(2, 4, slots=4)
    one = pool(limits)
    assert wanted(one, snapshot(0, stranger())) == 1
    assert one.claimant(one.decide(snapshot(0, stranger()), [], 100.0), 0.0, held_back=False).least == 1
    assert wanted(pool(limits), snapshot(0, stranger(), stranger(slots=8), stranger(slots=9))) == 0


@pytest.mark.parametrize("absent", [stranger("draining"), stranger(trouble="its server is away")])
def test_who_takes_no_jobs_is_no_capacity(absent: WorkerRecord) -> None:
    assert wanted(pool(), snapshot(4, absent)) == 1


def test_where_slots_are_followed_a_large_worker_counts_as_several() -> None:
    ours = WorkerRecord("worker-1", "busy", model=POOL, slots=4)
    assert wanted(pool(follows_slots=True), snapshot(20, ours, stranger(slots=16)), ours) == 1


def test_those_of_the_roster_are_not_counted_twice() -> None:
    ours = WorkerRecord("worker-1", "busy", model=POOL, slots=4)
    one = pool()
    wanted(one, snapshot(4, ours, stranger()), ours)
    assert (one.others, one.load.others, one.record("", 100.0).others) == (1, 1.0, 1)


def test_a_worker_too_many_goes_when_others_suffice() -> None:
    limits = Limits(0, 4, slots=4)
    history = decide(Load(4, 0, 0.0, 2, others=1.0), pool()._history, limits, 0.0).history
    assert decide(Load(4, 0, 0.0, 2, others=1.0), history, limits, 11.0).workers == 1
