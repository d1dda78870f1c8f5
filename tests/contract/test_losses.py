"""Texts that were lost though their workers live: redelivered, the attempt counted, or ended."""

from __future__ import annotations

from dataclasses import replace

from promptq.contract.job import Status
from promptq.queue.losses import Loss, Redelivered, redeliver
from promptq.queue.store import Claim
from tests.fakes import NOW, TimedStore, cancelled, keys, places, submit, success


def claims(store: TimedStore, count: int) -> list[Claim]:
    for _ in range(count):
        submit(store, cache=False)
    return store.claim("w", count, NOW)


def lose(store: TimedStore, *lost: Claim) -> Redelivered:
    return redeliver(store, [Loss(claim, "it broke off") for claim in lost])


def test_they_go_to_the_front_in_the_order_given_and_the_attempt_counts(store: TimedStore) -> None:
    held = claims(store, 3)
    later = submit(store, cache=False).job.id
    assert lose(store, *held[:2]) == Redelivered(2, 0, 0)
    again = store.claim("w", 9, NOW)
    assert [claim.id for claim in again] == [held[0].id, held[1].id, later]
    assert [claim.attempts for claim in again] == [2, 2, 1]
    assert store.client.hget(keys.totals(), "requeued:upstream_lost") == b"2"
    assert store.client.hget(keys.totals(), "requeued:worker_lost") is None


def test_the_last_attempt_ends_the_job_with_what_broke_it(store: TimedStore) -> None:
    (claim,) = claims(store, 1)
    for _ in range(2):
        lose(store, claim)
        (claim,) = store.claim("w", 1, NOW)
    assert claim.alone, "what it ran beside may not be broken by it for the last time"
    assert lose(store, claim) == Redelivered(0, 1, 0)
    job = store.get(claim.id)
    assert (job.status, job.error.type, job.attempts) == (Status.FAILED, "upstream_lost", 3)
    assert "it broke off" in job.error.message
    assert "3 attempts" in job.error.message
    assert places(store, claim.id) == [keys.failed("default")]


def test_the_same_call_again_changes_nothing(store: TimedStore) -> None:
    (claim,) = claims(store, 1)
    assert [lose(store, claim).requeued for _ in range(2)] == [1, 0]
    (again,) = store.claim("w", 1, NOW)
    assert lose(store, claim) == Redelivered(0, 0, 0), "an older claim has no say"
    assert store.finish("w", [success(again)], NOW) == [True]
    assert lose(store, again) == Redelivered(0, 0, 0)
    assert store.get(claim.id).status is Status.SUCCEEDED


def test_a_cancel_that_waits_ends_the_job(store: TimedStore) -> None:
    (claim,) = claims(store, 1)
    store.cancel(claim.id, NOW)
    assert lose(store, claim) == Redelivered(0, 0, 1)
    assert store.get(claim.id).status is Status.CANCELLED


def test_whoever_joined_is_generated_when_its_leader_fails(store: TimedStore) -> None:
    store = TimedStore(store.client, store.settings.model_copy(update={"max_attempts": 1}))
    submit(store)
    joined = submit(store).job.id
    (leader,) = store.claim("w", 1, NOW)
    assert lose(store, leader) == Redelivered(0, 1, 0)
    assert [claim.id for claim in store.claim("w", 9, NOW)] == [joined]


def test_one_that_was_not_begun_goes_back_unharmed(store: TimedStore) -> None:
    (claim,) = claims(store, 1)
    assert store.release([claim], NOW, reason="upstream") == 1
    job = store.get(claim.id)
    assert (job.status, job.attempts) == (Status.QUEUED, 0)
    assert store.client.hget(keys.totals(), "requeued:upstream") == b"1"
    (again,) = store.claim("w", 1, NOW)
    assert (again.attempts, again.moves, again.alone) == (1, 1, False)
    assert store.finish("w", [cancelled(replace(again))], NOW) == [True]
