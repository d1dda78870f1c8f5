"""Who waits for many jobs learns in one round trip which have ended."""

from __future__ import annotations

from promptq.queue.endings import ended
from tests.fakes import NOW, TimedStore, failure, submit, success


def test_those_that_wait_join_or_run_have_not_ended_and_those_that_are_gone_have(store: TimedStore) -> None:
    queued, leader, follower, done, failed, stopped = (
        submit(store, prompt, job_id=job_id, cache=cached).job.id
        for job_id, prompt, cached in (
            ("queued", "a", False), ("leader", "same", True), ("follower", "same", True), ("done", "b", False),
            ("failed", "c", False), ("stopped", "d", False),
        )
    )  # fmt: skip
    store.cancel(stopped, NOW)
    claims = {claim.id: claim for claim in store.claim("w", 4, NOW)}
    store.finish("w", [success(claims[done]), failure(claims[failed])], NOW)
    ids = [queued, leader, follower, done, failed, stopped, "unknown"]
    assert ended(store, ids) == [done, failed, stopped, "unknown"]
