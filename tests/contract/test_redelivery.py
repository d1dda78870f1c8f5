"""Lost leases, suspects and second lives: the store's laws, on fakeredis and on a real server alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from promptq.contract.errors import IdempotencyConflict, JobNotFailed, JobNotFound, QueueFull
from promptq.contract.job import Status
from promptq.queue.store import Claim
from tests.fakes import NOW, TimedStore, failure, keys, new_job, places, submit, success, with_settings

LEASE = 15


def lose(store: TimedStore, count: int, times: int, now: float = NOW) -> float:
    """Claim and lose so many jobs so many times; the time afterwards."""
    for _ in range(times):
        assert len(store.claim("doomed", count, now)) == count
        now += LEASE + 1
        store.reap(now)
    return now


class TestSuspects:
    def test_what_lost_its_worker_once_is_claimed_in_a_batch_again(self, store: TimedStore) -> None:
        for _ in range(3):
            submit(store, cache=False)
        now = lose(store, 3, 1)
        claims = store.claim("w", 5, now)
        assert [(claim.attempts, claim.alone) for claim in claims] == [(2, False)] * 3

    def test_the_last_attempt_after_lost_ones_is_made_alone(self, store: TimedStore) -> None:
        ids = [submit(store, cache=False).job.id for _ in range(3)]
        now = lose(store, 3, 2)
        claims = [store.claim(f"w{i}", 5, now) for i in range(3)]
        assert [len(batch) for batch in claims] == [1, 1, 1]
        assert {batch[0].id for batch in claims} == set(ids)
        assert all(batch[0].alone for batch in claims)

    def test_a_busy_worker_waits_for_its_end_and_takes_nothing_from_behind_it(self, store: TimedStore) -> None:
        suspect = submit(store, cache=False).job
        now = lose(store, 1, 2)
        submit(store, cache=False, now=now)
        assert store.claim("busy", 5, now, busy=True) == []
        assert [claim.id for claim in store.claim("idle", 5, now)] == [suspect.id]
        assert len(store.claim("busy", 5, now, busy=True)) == 1

    def test_those_ahead_of_a_suspect_are_claimed_without_it(self, store: TimedStore) -> None:
        submit(store, cache=False)
        now = lose(store, 1, 2)
        urgent = submit(store, cache=False, priority="high", now=NOW).job
        assert [claim.id for claim in store.claim("w", 5, now)] == [urgent.id]

    def test_one_attempt_in_all_makes_nobody_suspect(self, store: TimedStore) -> None:
        store = with_settings(store, max_attempts=1)
        for _ in range(2):
            submit(store, cache=False)
        assert [claim.alone for claim in store.claim("w", 5, NOW)] == [False, False]

    def test_a_drained_worker_makes_nobody_suspect(self, store: TimedStore) -> None:
        submit(store, cache=False)
        for _ in range(5):
            store.release(store.claim("w", 1, NOW), NOW)
        assert [(claim.attempts, claim.alone) for claim in store.claim("w", 1, NOW, busy=True)] == [(1, False)]


class TestReaper:
    def test_leases_can_be_spared_while_the_rest_is_done(self, store: TimedStore) -> None:
        running, waiting = submit(store, cache=False).job, submit(store, cache=False, ttl_seconds=5.0).job
        store.claim("w", 1, NOW)
        reaped = store.reap(NOW + LEASE + 1, spare_leases=True)
        assert (reaped.requeued, reaped.expired) == (0, 1)
        assert places(store, running.id) == ["rq:wip:default"]
        assert store.get(waiting.id).status is Status.EXPIRED

    def test_a_late_renewal_wins_when_the_reaper_has_not_been(self, store: TimedStore) -> None:
        submit(store)
        claims = store.claim("w", 1, NOW)
        assert store.renew(claims, NOW + 3 * LEASE) == ["ok"]
        assert store.reap(NOW + 3 * LEASE + 1).requeued == 0
        assert store.finish("w", [success(claims[0])], NOW + 3 * LEASE + 2) == [True]

    def test_a_renewal_after_the_reaper_is_lost_even_when_the_job_runs_again(self, store: TimedStore) -> None:
        submit(store)
        old = store.claim("old", 1, NOW)
        store.reap(NOW + LEASE + 1)
        assert store.renew(old, NOW + LEASE + 1) == ["lost"]
        new = store.claim("new", 1, NOW + LEASE + 2)
        assert store.renew(old, NOW + LEASE + 3) == ["lost"]
        assert store.release(old, NOW + LEASE + 3) == 0
        assert store.renew(new, NOW + LEASE + 3) == ["ok"]


class TestDeadWorker:
    def test_its_claims_come_back_at_once_and_nobody_elses(self, store: TimedStore) -> None:
        ids = [submit(store, cache=False, priority=queue).job.id for queue in ("high", "default", "low", "low")]
        dead, alive = store.claim("dead", 3, NOW), store.claim("alive", 1, NOW)
        assert store.take_back("dead", NOW).requeued == 3
        assert [store.get(job_id).status for job_id in ids] == [Status.QUEUED] * 3 + [Status.RUNNING]
        assert store.renew([*dead, *alive], NOW) == ["lost"] * 3 + ["ok"]
        assert store.finish("dead", [success(dead[0], "stale")], NOW) == [False]
        assert store.finish("alive", [success(alive[0])], NOW) == [True]
        assert {claim.attempts for claim in store.claim("heir", 5, NOW)} == {2}

    def test_more_than_one_pass_of_the_reaper_would_take(self, store: TimedStore) -> None:
        for number in range(130):
            submit(store, str(number), cache=False)
        assert len(store.claim("dead", 130, NOW)) == 130
        assert store.take_back("dead", NOW).requeued == 130
        assert store.take_back("dead", NOW).requeued == 0

    def test_attempts_run_out_and_the_last_is_made_alone_as_after_a_lost_lease(self, store: TimedStore) -> None:
        jobs = [submit(store, cache=False).job for _ in range(2)]
        for attempt in range(1, 3):
            assert [claim.attempts for claim in store.claim("dead", 2, NOW)] == [attempt] * 2
            store.take_back("dead", NOW)
        (claim,) = store.claim("dead", 2, NOW)
        assert claim.alone
        assert store.take_back("dead", NOW).worker_lost == 1
        seen = store.get(claim.id)
        assert (seen.error.type, seen.attempts) == ("worker_lost", 3)
        assert sorted(store.get(job.id).status for job in jobs) == [Status.FAILED, Status.QUEUED]

    def test_a_cancel_that_the_dead_never_heard_is_kept(self, store: TimedStore) -> None:
        job = submit(store, cache=False).job
        store.claim("dead", 1, NOW)
        store.cancel(job.id, NOW)
        assert store.take_back("dead", NOW).cancelled == 1
        assert store.get(job.id).status is Status.CANCELLED

    def test_a_job_that_has_gone_to_another_worker_is_not_touched(self, store: TimedStore) -> None:
        submit(store, cache=False)
        store.claim("dead", 1, NOW)
        store.reap(NOW + LEASE + 1)
        (claim,) = store.claim("heir", 1, NOW + LEASE + 1)
        assert store.take_back("dead", NOW + LEASE + 1).requeued == 0
        assert store.renew([claim], NOW + LEASE + 1) == ["ok"]

    def test_it_is_not_counted_as_a_lease_that_ran_out(self, store: TimedStore) -> None:
        submit(store, cache=False)
        store.claim("dead", 1, NOW)
        store.take_back("dead", NOW)
        totals = store.client.hgetall(keys.totals())
        assert (totals[b"requeued:worker_lost"], totals.get(b"lease_expiries")) == (b"1", None)


class TestRetry:
    def fail(self, store: TimedStore) -> str:
        job = submit(store).job
        store.finish("w", [failure(store.claim("w", 1, NOW)[0], "oom")], NOW)
        return job.id

    def test_a_failed_job_is_queued_again_as_new(self, store: TimedStore) -> None:
        job_id = self.fail(store)
        store.retry(job_id, NOW + 1)
        seen = store.get(job_id)
        assert (seen.status, seen.error, seen.attempts, seen.finished_at) == (Status.QUEUED, None, 0, None)
        assert places(store, job_id) == ["rq:queue:default"]
        assert store.client.ttl(keys.job(job_id)) == -1
        (claim,) = store.claim("w", 1, NOW + 2)
        store.finish("w", [success(claim, "late")], NOW + 3)
        assert store.get(job_id).result.text == "late"

    def test_the_claim_of_the_failed_life_is_spent(self, store: TimedStore) -> None:
        job = submit(store).job
        (old,) = store.claim("w", 1, NOW)
        store.finish("w", [failure(old)], NOW)
        store.retry(job.id, NOW)
        (new,) = store.claim("w", 1, NOW)
        assert store.finish("w", [success(old)], NOW) == [False]
        assert store.finish("w", [success(new)], NOW) == [True]

    def test_a_lost_job_gets_all_its_attempts_again(self, store: TimedStore) -> None:
        job = submit(store).job
        now = lose(store, 1, 3)
        assert store.get(job.id).error.type == "worker_lost"
        store.retry(job.id, now)
        (claim,) = store.claim("w", 1, now)
        assert (claim.attempts, claim.alone) == (1, False)

    @pytest.mark.parametrize("state", ["queued", "running", "succeeded", "cancelled", "expired"])
    def test_what_has_not_failed_is_refused(self, store: TimedStore, state: str) -> None:
        job = submit(store, ttl_seconds=5.0).job
        claims: list[Claim] = store.claim("w", 1, NOW) if state in ("running", "succeeded") else []
        if state == "succeeded":
            store.finish("w", [success(claims[0])], NOW)
        elif state == "cancelled":
            store.cancel(job.id, NOW)
        elif state == "expired":
            store.reap(NOW + 6)
        before = places(store, job.id)
        with pytest.raises(JobNotFailed) as caught:
            store.retry(job.id, NOW)
        assert (caught.value.status, places(store, job.id)) == (state, before)

    def test_a_full_queue_refuses_it(self, store: TimedStore) -> None:
        job_id = self.fail(store)
        full = with_settings(store, max_queue_jobs=1)
        submit(full, cache=False)
        with pytest.raises(QueueFull):
            full.retry(job_id, NOW)
        assert store.get(job_id).status is Status.FAILED

    def test_an_unknown_job_cannot_be_retried(self, store: TimedStore) -> None:
        with pytest.raises(JobNotFound):
            store.retry("nope", NOW)


@pytest.mark.parametrize("field", ["attempts", "timeout_seconds", "queued_at"])
def test_nonsense_in_a_job_costs_its_batch_mates_nothing(store: TimedStore, field: str) -> None:
    odd, sane = submit(store, cache=False).job, submit(store, cache=False).job
    store.client.hset(keys.job(odd.id), field, "nonsense")
    assert {claim.id for claim in store.claim("w", 5, NOW)} == {odd.id, sane.id}


def test_a_lifetime_beyond_all_bounds_costs_no_result(store: TimedStore) -> None:
    endless, sane = submit(store, cache=False).job, submit(store, cache=False).job
    store.client.hset(keys.job(endless.id), "result_ttl", "1e300")
    assert store.finish("w", [success(claim) for claim in store.claim("w", 5, NOW)], NOW) == [True, True]
    assert store.client.ttl(keys.job(endless.id)) > store.client.ttl(keys.job(sane.id)) > 0


def test_jobs_of_two_owners_share_no_text_and_no_id(store: TimedStore) -> None:
    mine, yours = (replace(new_job(job_id=f"of-{name}", keep=9), owner=name) for name in ("me", "you"))
    assert [store.submit(new, NOW).outcome for new in (mine, yours)] == ["new", "new"]
    assert (store.get("of-me").owner, store.get("of-you").owner) == ("me", "you")
    with pytest.raises(IdempotencyConflict):
        store.submit(replace(mine, owner="you"), NOW)
