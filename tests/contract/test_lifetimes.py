"""How long a job may wait, and how long what it left is kept."""

from __future__ import annotations

import pytest

from promptq.contract.errors import IdempotencyConflict
from promptq.contract.job import Status
from promptq.queue.reconcile import reconcile_some
from tests.fakes import NOW, TimedStore, failure, keys, new_job, submit, success, with_settings

LEASE = 15


@pytest.mark.parametrize("how", ["released", "lost", "taken back"])
def test_a_job_that_was_started_in_time_expires_no_more(store: TimedStore, how: str) -> None:
    """Its ttl_seconds is how long it may wait; that it ran, and lost its worker, must not end it."""
    job = submit(store, ttl_seconds=20).job
    (claim,) = store.claim("w", 1, NOW + 19)
    if how == "released":
        store.release([claim], NOW + 40)
    elif how == "lost":
        store.reap(NOW + 19 + LEASE + 1)
    else:
        store.take_back("w", NOW + 40)
    assert store.reap(NOW + 60).expired == 0
    (again,) = store.claim("w", 1, NOW + 60)
    assert store.finish("w", [success(again)], NOW + 60) == [True]
    assert store.get(job.id).status is Status.SUCCEEDED


@pytest.mark.parametrize("looks", ["reap", "claim"])
def test_one_that_its_server_never_began_expires_as_if_it_had_only_waited(store: TimedStore, looks: str) -> None:
    job = submit(store, ttl_seconds=20).job
    for seconds in (1, 15):
        (claim,) = store.claim("w", 1, NOW + seconds)
        assert store.reap(NOW + seconds + 7).expired == 0, "while it is claimed it does not wait"
        assert store.release([claim], NOW + seconds + 7, reason="upstream") == 1
    if looks == "reap":
        assert store.reap(NOW + 23).expired == 1
    assert store.claim("w", 1, NOW + 23) == []
    assert store.get(job.id).status is Status.EXPIRED
    assert not store.client.exists(keys.expiry())


def test_one_that_began_before_its_server_gave_it_back_expires_no_more(store: TimedStore) -> None:
    submit(store, ttl_seconds=20)
    store.release(store.claim("w", 1, NOW), NOW)
    store.release(store.claim("w", 1, NOW), NOW, reason="upstream")
    assert store.reap(NOW + 60).expired == 0


def test_an_ended_job_that_rq_queues_again_does_not_expire_by_its_first_life(store: TimedStore) -> None:
    job = submit(store, ttl_seconds=20).job
    assert store.reap(NOW + 21).expired == 1
    # As `rq requeue` does it.
    store.client.zrem(keys.failed("default"), job.id)
    store.client.hset(keys.job(job.id), "status", "queued")
    store.client.rpush(keys.queue("default"), job.id)
    reconcile_some(store)
    assert store.reap(NOW + 60).expired == 0
    assert [claim.id for claim in store.claim("w", 1, NOW + 60)] == [job.id]


def test_a_client_s_key_is_known_as_long_as_promised_also_when_its_job_failed(store: TimedStore) -> None:
    store = with_settings(store, failure_ttl_seconds=60)
    first = store.submit(new_job("p", key="k", keep=3600), NOW).job
    store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW)], NOW)
    assert store.client.ttl(keys.job(first.id)) > 3000
    assert store.submit(new_job("p", key="k", keep=3600), NOW).job.id == first.id
    with pytest.raises(IdempotencyConflict):
        store.submit(new_job("another", key="k", keep=3600), NOW)


def test_failures_are_kept_for_their_own_time_where_that_is_longer(store: TimedStore) -> None:
    store = with_settings(store, failure_ttl_seconds=7200)
    job = store.submit(new_job("p", key="k", keep=60), NOW).job
    store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW)], NOW)
    assert store.client.ttl(keys.job(job.id)) > 7000
