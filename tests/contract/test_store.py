"""The laws of the store, on fakeredis and on a real server alike."""

from __future__ import annotations

import pytest

from promptq.contract.errors import JobAlreadyTerminal, JobNotFound
from promptq.contract.job import Status
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, places, submit, success

LEASE = 15


class TestSubmitAndClaim:
    def test_a_submitted_job_waits_in_its_queue(self, store: TimedStore) -> None:
        job = submit(store, priority="high").job
        assert store.get(job.id).status is Status.QUEUED
        assert places(store, job.id) == ["rq:queue:high"]

    def test_positions_count_the_jobs_ahead(self, store: TimedStore) -> None:
        jobs = [submit(store, cache=False).job for _ in range(3)]
        assert [job.queue_position for job in jobs] == [0, 1, 2]
        assert [store.get(job.id).queue_position for job in jobs] == [0, 1, 2]

    def test_a_claim_moves_jobs_from_the_queue_under_a_lease(self, store: TimedStore) -> None:
        job = submit(store).job
        (claim,) = store.claim("w", 5, NOW + 1)
        assert (claim.id, claim.attempts, claim.waited_seconds) == (job.id, 1, 1.0)
        assert places(store, job.id) == ["rq:wip:default"]
        seen = store.get(job.id)
        assert (seen.status, seen.started_at, seen.attempts) == (Status.RUNNING, NOW + 1, 1)

    @pytest.mark.parametrize("fields", [{}, {"ttl_seconds": 9}, {"timeout_seconds": 9}])
    def test_a_claim_carries_the_jobs_own_limit(self, store: TimedStore, fields: dict[str, int]) -> None:
        submit(store, **fields)
        (claim,) = store.claim("w", 1, NOW)
        assert (claim.attempts, claim.timeout_seconds) == (1, fields.get("timeout_seconds"))

    def test_a_claim_takes_no_more_than_asked(self, store: TimedStore) -> None:
        for _ in range(5):
            submit(store, cache=False)
        assert len(store.claim("w", 3, NOW)) == 3
        assert len(store.claim("w", 3, NOW)) == 2
        assert store.claim("w", 3, NOW) == []

    def test_high_goes_before_default_before_low(self, store: TimedStore) -> None:
        for priority in ("low", "default", "high"):
            submit(store, priority, cache=False, priority=priority)
        assert [claim.queue.priority for claim in store.claim("w", 3, NOW)] == ["high", "default", "low"]

    def test_low_does_not_starve(self, store: TimedStore) -> None:
        old = submit(store, "old", now=NOW, priority="low").job
        submit(store, "new", now=NOW + 2 * store.settings.ageing_seconds + 1, priority="high")
        assert store.claim("w", 1, NOW + 100)[0].id == old.id

    def test_a_key_that_is_no_job_keeps_nobody_from_being_claimed(self, store: TimedStore) -> None:
        broken, sound = (submit(store, prompt, cache=False).job.id for prompt in "ab")
        store.client.delete(keys.job(broken))
        store.client.set(keys.job(broken), "what somebody else wrote")
        assert [claim.id for claim in store.claim("w", 5, NOW)] == [sound]

    def test_keys_of_another_type_keep_nobody_from_ending(self, store: TimedStore) -> None:
        jobs = [submit(store, prompt).job.id for prompt in "abcb"][:3]
        claims = store.claim("w", 3, NOW)
        store.client.set(keys.results(jobs[0]), "no stream")
        assert store.finish("w", [success(claim) for claim in claims], NOW) == [True] * 3
        assert [store.client.hget(keys.job(job_id), "status") for job_id in jobs] == [b"finished"] * 3
        assert store.get(jobs[2]).result is not None
        assert store.client.zcard(keys.finished("default")) == 4

    def test_a_vanished_job_is_skipped(self, store: TimedStore) -> None:
        gone, stays = submit(store, cache=False).job, submit(store, cache=False).job
        store.client.delete(keys.job(gone.id))
        assert [claim.id for claim in store.claim("w", 5, NOW)] == [stays.id]

    def test_an_unknown_job_is_not_found(self, store: TimedStore) -> None:
        with pytest.raises(JobNotFound):
            store.get("nope")


class TestFinish:
    def test_the_result_is_stored_with_a_lifetime(self, store: TimedStore) -> None:
        job = submit(store).job
        (claim,) = store.claim("w", 1, NOW + 1)
        assert store.finish("w", [success(claim, "Paris")], NOW + 2) == [True]
        seen = store.get(job.id)
        assert (seen.status, seen.finished_at, seen.result.text) == (Status.SUCCEEDED, NOW + 2, "Paris")
        assert places(store, job.id) == ["rq:finished:default"]
        for key in (keys.job(job.id), keys.results(job.id)):
            assert 0 < store.client.ttl(key) <= store.settings.result_ttl_seconds

    def test_its_lifetime_is_by_the_clock_of_the_server(self, store: TimedStore) -> None:
        """A worker's own clock may be years off: what it ends must not be gone at once."""
        job = submit(store).job
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], 1000.0)
        for key in (keys.job(job.id), keys.results(job.id)):
            assert abs(1000 * store.settings.result_ttl_seconds - store.client.pttl(key)) < 900

    def test_failed_lives_leave_ten_results_at_most(self, store: TimedStore) -> None:
        job = submit(store).job
        for _ in range(12):
            store.finish("w", [failure(store.claim("w", 1, NOW)[0])], NOW)
            store.retry(job.id, NOW)
        assert store.client.xlen(keys.results(job.id)) == 10

    def test_finishing_twice_writes_once(self, store: TimedStore) -> None:
        job = submit(store).job
        claims = store.claim("w", 1, NOW)
        assert store.finish("w", [success(claims[0], "first")], NOW) == [True]
        # As when the answer to the first call was lost.
        assert store.finish("w", [success(claims[0], "second")], NOW) == [True]
        assert store.get(job.id).result.text == "first"

    def test_a_worker_that_lost_its_lease_is_fenced_off(self, store: TimedStore) -> None:
        job = submit(store).job
        (old,) = store.claim("old", 1, NOW)
        assert store.reap(NOW + LEASE + 1).requeued == 1
        (new,) = store.claim("new", 1, NOW + LEASE + 2)
        assert store.finish("old", [success(old, "stale")], NOW + LEASE + 3) == [False]
        assert store.finish("new", [success(new, "fresh")], NOW + LEASE + 3) == [True]
        assert store.get(job.id).result.text == "fresh"
        assert store.get(job.id).attempts == 2

    def test_a_failure_is_kept_in_the_dead_letter_list(self, store: TimedStore) -> None:
        job = submit(store).job
        store.finish("w", [failure(store.claim("w", 1, NOW)[0], "oom")], NOW)
        seen = store.get(job.id)
        assert (seen.status, seen.error.type, seen.error.message) == (Status.FAILED, "oom", "It broke.")
        assert places(store, job.id) == ["rq:failed:default"]
        assert store.client.ttl(keys.job(job.id)) > store.settings.result_ttl_seconds

    def test_several_jobs_end_in_one_call(self, store: TimedStore) -> None:
        ids = [submit(store, cache=False).job.id for _ in range(4)]
        claims = store.claim("w", 4, NOW)
        endings = [success(claims[0]), failure(claims[1]), cancelled(claims[2]), success(claims[3])]
        assert store.finish("w", endings, NOW) == [True] * 4
        states = [store.get(job_id).status.value for job_id in ids]
        assert states == ["succeeded", "failed", "cancelled", "succeeded"]


class TestLeases:
    def test_a_renewed_lease_is_not_reaped(self, store: TimedStore) -> None:
        submit(store)
        claims = store.claim("w", 1, NOW)
        assert store.renew(claims, NOW + LEASE - 1) == ["ok"]
        assert store.reap(NOW + LEASE + 1).requeued == 0
        assert store.reap(NOW + 2 * LEASE).requeued == 1
        assert store.renew(claims, NOW + 2 * LEASE) == ["lost"]

    def test_a_reaped_job_goes_to_the_front(self, store: TimedStore) -> None:
        first, second = submit(store, cache=False).job, submit(store, cache=False).job
        store.claim("w", 1, NOW)
        store.reap(NOW + LEASE + 1)
        assert [claim.id for claim in store.claim("w", 2, NOW + 20)] == [first.id, second.id]

    def test_a_job_whose_workers_all_die_fails_as_worker_lost(self, store: TimedStore) -> None:
        job, now = submit(store).job, NOW
        for _ in range(store.settings.max_attempts):
            assert len(store.claim("w", 1, now)) == 1
            now += LEASE + 1
            reaped = store.reap(now)
        assert reaped.worker_lost == 1
        seen = store.get(job.id)
        assert (seen.status, seen.error.type, seen.attempts) == (Status.FAILED, "worker_lost", 3)

    def test_released_jobs_return_in_order_with_their_attempts(self, store: TimedStore) -> None:
        ids = [submit(store, cache=False).job.id for _ in range(3)]
        assert store.release(store.claim("w", 2, NOW), NOW) == 2
        claims = store.claim("w", 3, NOW)
        assert [claim.id for claim in claims] == ids
        assert [claim.attempts for claim in claims] == [1, 1, 1]

    def test_two_reapers_requeue_once(self, store: TimedStore) -> None:
        job = submit(store).job
        store.claim("w", 1, NOW)
        assert [store.reap(NOW + LEASE + 1).requeued for _ in range(2)] == [1, 0]
        assert places(store, job.id) == ["rq:queue:default"]


class TestCancel:
    def test_a_waiting_job_ends_at_once(self, store: TimedStore) -> None:
        job = submit(store).job
        assert store.cancel(job.id, NOW) is Status.CANCELLED
        assert store.get(job.id).status is Status.CANCELLED
        assert places(store, job.id) == ["rq:canceled:default"]
        assert store.claim("w", 1, NOW) == []

    def test_a_running_job_is_asked_to_stop_and_keeps_its_partial_text(self, store: TimedStore) -> None:
        job = submit(store).job
        claims = store.claim("w", 1, NOW)
        assert store.cancel(job.id, NOW) is Status.RUNNING
        assert store.get(job.id).cancel_requested
        assert store.renew(claims, NOW) == ["cancel"]
        store.finish("w", [cancelled(claims[0], "par")], NOW)
        assert store.get(job.id).result.text == "par"

    def test_a_cancelled_job_of_a_dead_worker_is_not_run_again(self, store: TimedStore) -> None:
        job = submit(store).job
        store.claim("w", 1, NOW)
        store.cancel(job.id, NOW)
        assert store.reap(NOW + LEASE + 1).cancelled == 1
        assert store.get(job.id).status is Status.CANCELLED

    def test_a_terminal_job_stays_as_it_is(self, store: TimedStore) -> None:
        job = submit(store).job
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
        with pytest.raises(JobAlreadyTerminal) as caught:
            store.cancel(job.id, NOW)
        assert caught.value.status == "succeeded"
        assert store.get(job.id).status is Status.SUCCEEDED

    def test_an_unknown_job_cannot_be_cancelled(self, store: TimedStore) -> None:
        with pytest.raises(JobNotFound):
            store.cancel("nope", NOW)


class TestExpiry:
    def test_the_reaper_expires_what_waited_too_long(self, store: TimedStore) -> None:
        job = submit(store, ttl_seconds=5).job
        assert store.reap(NOW + 4).expired == 0
        assert store.reap(NOW + 6).expired == 1
        seen = store.get(job.id)
        assert (seen.status, seen.error.type) == (Status.EXPIRED, "expired")
        assert places(store, job.id) == ["rq:failed:default"]

    def test_a_claim_skips_an_expired_job(self, store: TimedStore) -> None:
        job, other = submit(store, ttl_seconds=5, cache=False).job, submit(store, cache=False).job
        assert [claim.id for claim in store.claim("w", 2, NOW + 6)] == [other.id]
        assert store.get(job.id).status is Status.EXPIRED

    def test_a_running_job_does_not_expire(self, store: TimedStore) -> None:
        job = submit(store, ttl_seconds=5).job
        store.claim("w", 1, NOW + 1)
        assert store.reap(NOW + 6).expired == 0
        assert store.get(job.id).status is Status.RUNNING

    def test_registries_forget_what_has_ended_its_lifetime(self, store: TimedStore) -> None:
        job = submit(store).job
        store.cancel(job.id, NOW)
        store.reap(NOW + store.settings.result_ttl_seconds + 1)
        assert places(store, job.id) == []


def test_every_key_that_stays_has_a_lifetime_or_is_in_the_catalogue(store: TimedStore) -> None:
    for fields in ({}, {}, {"cache": False}, {"ttl_seconds": 5.0, "prompt": "x"}):
        submit(store, **fields)
    claims = store.claim("w", 2, NOW)
    store.finish("w", [success(claims[0]), failure(claims[1])], NOW)
    store.reap(NOW + 10)
    timeless = {name.decode() for name in store.client.scan_iter() if store.client.ttl(name) == -1}
    allowed = (keys.queue_names(), keys.totals(), keys.finished(), keys.failed(), keys.canceled())
    assert [name for name in timeless if not name.startswith(allowed)] == []
