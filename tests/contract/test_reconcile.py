"""Jobs whose place is lost are put back: after an eviction, or a key that somebody deleted."""

from __future__ import annotations

import pytest

from promptq.contract.job import Status
from promptq.queue.reconcile import KEYS_A_STEP, reconcile_some
from tests.chaos.census import census
from tests.fakes import NOW, TimedStore, failure, keys, new_job, places, submit, success


def reconcile_all(store: TimedStore, now: float = NOW) -> int:
    store.at = now
    cursor, put_back = reconcile_some(store)
    while cursor:
        cursor, more = reconcile_some(store, cursor)
        put_back += more
    return put_back


def test_a_queue_that_was_evicted_comes_back(store: TimedStore) -> None:
    ids = {submit(store, cache=False, priority=priority).job.id for priority in ("high", "low") for _ in range(3)}
    store.client.delete(keys.queue("high"), keys.queue("low"))
    assert store.claim("w", 8, NOW) == []
    assert reconcile_all(store) == 6
    assert {claim.id for claim in store.claim("w", 8, NOW)} == ids


def test_what_is_in_its_place_is_let_be(store: TimedStore) -> None:
    for number in range(4):
        submit(store, "same" if number > 2 else str(number), ttl_seconds=30)
    submit(store, "same")
    store.claim("w", 2, NOW)
    store.cancel(submit(store, cache=False).job.id, NOW)
    before = {key: store.client.dump(key) for key in store.client.keys("*")}
    assert reconcile_all(store) == 0
    assert {key: store.client.dump(key) for key in store.client.keys("*")} == before


def test_what_runs_in_nobodys_hands_runs_again_and_its_attempt_does_not_count(store: TimedStore) -> None:
    job = submit(store).job
    (old,) = store.claim("w", 1, NOW)
    store.client.delete(keys.wip("default"))
    assert store.renew([old], NOW) == ["lost"]
    assert reconcile_all(store) == 1
    (new,) = store.claim("w", 1, NOW)
    assert (new.id, new.attempts) == (job.id, 1)
    assert store.finish("w", [success(old, "stale")], NOW) == [False]
    assert store.finish("w", [success(new, "fresh")], NOW) == [True]


def test_a_cancel_that_waited_for_what_nobody_holds_is_done(store: TimedStore) -> None:
    job = submit(store).job
    store.claim("w", 1, NOW)
    store.cancel(job.id, NOW)
    store.client.delete(keys.wip("default"))
    assert reconcile_all(store) == 1
    assert (store.get(job.id).status, places(store, job.id)) == (Status.CANCELLED, [keys.canceled("default")])


@pytest.mark.parametrize("lost", [keys.deferred("default"), keys.groups()])
def test_who_joined_is_led_again(store: TimedStore, lost: str) -> None:
    leader, joined = submit(store, "same").job, submit(store, "same").job
    store.client.delete(lost)
    reconcile_all(store)
    store.reap(NOW)
    for _ in range(2):
        store.finish("w", [success(claim, "shared") for claim in store.claim("w", 1, NOW)], NOW)
    assert [store.get(job.id).result.text for job in (leader, joined)] == ["shared", "shared"]
    assert not store.client.exists(keys.groups())


def test_a_deadline_that_was_evicted_is_kept_all_the_same(store: TimedStore) -> None:
    job = submit(store, ttl_seconds=5).job
    store.client.delete(keys.expiry())
    reconcile_all(store)
    assert store.reap(NOW + 6).expired == 1
    assert store.get(job.id).status is Status.EXPIRED


def test_a_failed_job_that_rq_queued_again_does_not_vanish_while_it_waits(store: TimedStore) -> None:
    job = submit(store).job
    store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW)], NOW)
    # As `rq requeue` does it.
    store.client.zrem(keys.failed("default"), job.id)
    store.client.hset(keys.job(job.id), "status", "queued")
    store.client.rpush(keys.queue("default"), job.id)
    assert store.client.ttl(keys.job(job.id)) > 0
    reconcile_all(store)
    assert store.client.ttl(keys.job(job.id)) == -1


def test_many_jobs_are_looked_at_in_steps(client, settings) -> None:
    store = TimedStore(client, settings)
    for number in range(KEYS_A_STEP // 50 + 3):
        store.submit_many([new_job(str(number), cache=False) for _ in range(100)], NOW)
    client.delete(keys.queue("default"))
    assert reconcile_all(store) == client.llen(keys.queue("default")) == 100 * (KEYS_A_STEP // 50 + 3)
    assert census(client) == []


def test_other_keys_that_look_like_jobs_are_passed_over(store: TimedStore) -> None:
    store.client.set(keys.job("no-hash"), "x")
    store.client.sadd(keys.job("some:dependents"), "x")
    assert reconcile_all(store) == 0
