"""Any order of calls, two workers, a clock that moves: each job in one place, ends that stay, fences that hold."""

from __future__ import annotations

import itertools
from dataclasses import replace

import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from promptq.contract.errors import IdempotencyConflict, JobAlreadyTerminal, JobNotFailed, QueueFull
from promptq.contract.job import Status
from promptq.contract.keys import Key
from promptq.contract.queues import PRIORITIES
from promptq.contract.settings import WorkerSettings
from promptq.queue.losses import Loss, redeliver
from promptq.queue.reconcile import reconcile_some
from promptq.queue.store import Claim
from tests.chaos.census import census
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, new_job, success

EXAMPLES = 60
ENDINGS = {"success": success, "failure": failure, "cancelled": cancelled}
WORKERS = st.sampled_from(["w1", "w2"])
PICK = st.integers(min_value=0, max_value=1_000_000)


class StoreMachine(RuleBasedStateMachine):
    """What the clients and the workers know, held against the store after each step."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.client = client
        self.store = TimedStore(self.client, WorkerSettings(_env_file=None, max_queue_jobs=12, max_attempts=3))
        self.now = NOW
        self.ids: list[str] = []
        self.ended: dict[str, object] = {}
        self.claims: list[tuple[str, Claim]] = []
        self.current: dict[str, Claim] = {}
        self.ended_by: dict[str, str] = {}
        self.numbers = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.submit(0, "default", True, None)

    @rule(
        prompt=st.integers(0, 3), priority=st.sampled_from(PRIORITIES), cache=st.booleans(),
        ttl=st.none() | st.floats(0.1, 40), owner=st.sampled_from(["", "ann", "bob"]),
    )  # fmt: skip
    def submit(self, prompt: int, priority: str, cache: bool, ttl: float | None, owner: str = "") -> None:
        new = replace(new_job(f"p{prompt}", priority=priority, cache=cache, ttl_seconds=ttl), owner=owner)
        try:
            self.ids.append(self.store.submit(new, self.now).job.id)
        except QueueFull:
            assert len(self._live()) >= (10 if owner else 12)

    @rule(number=st.integers(0, 3), prompt=st.integers(0, 1))
    def submit_with_a_key(self, number: int, prompt: int) -> None:
        try:
            done = self.store.submit(new_job(f"p{prompt}", key=f"k{number}", keep=100_000), self.now)
        except (QueueFull, IdempotencyConflict):
            return
        assert (done.outcome == "repeat") == (done.job.id in self.ids)
        self.ids += [] if done.outcome == "repeat" else [done.job.id]

    @rule(worker=WORKERS, count=st.integers(1, 4), busy=st.booleans())
    def claim(self, worker: str, count: int, busy: bool) -> None:
        claims = self.store.claim(worker, count, self.now, busy=busy)
        assert len({claim.id for claim in claims}) == len(claims) <= count
        assert not any(claim.alone for claim in claims) or (len(claims) == 1 and not busy)
        for claim in claims:
            assert claim.id not in self.ended
            assert 1 <= claim.attempts <= 3
            self.claims.append((worker, claim))
            self.current[claim.id] = claim

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, how=st.sampled_from(sorted(ENDINGS)))
    def finish(self, pick: int, how: str) -> None:
        worker, claim = self.claims[pick % len(self.claims)]
        counts = self._held(claim) or self.ended_by.get(claim.id) == claim.execution
        assert self.store.finish(worker, [ENDINGS[how](claim)], self.now) == [counts]
        if counts:
            self.ended_by[claim.id] = claim.execution

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def renew(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)][1]
        held = self._held(claim)
        assert (self.store.renew([claim], self.now) != ["lost"]) == held

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)][1]
        held = self._held(claim)
        assert self.store.release([claim], self.now) == held

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def its_text_is_lost(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)][1]
        held, self.store.at = self._held(claim), self.now
        done = redeliver(self.store, [Loss(claim, "it broke off")])
        assert done.requeued + done.failed + done.cancelled == held

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        job_id = self._pick(pick)
        try:
            if self.store.cancel(job_id, self.now) is Status.CANCELLED:
                self.ended_by.pop(job_id, None)
            assert job_id not in self.ended
        except JobAlreadyTerminal:
            assert self.store.get(job_id).status.is_terminal

    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        job_id = self._pick(pick)
        status = self.store.get(job_id).status
        try:
            self.store.retry(job_id, self.now)
            assert status is Status.FAILED
            self.ended.pop(job_id, None)
            self.ended_by.pop(job_id, None)
        except JobNotFailed:
            assert status is not Status.FAILED
        except QueueFull:
            pass

    @rule(spare=st.booleans())
    def reap(self, spare: bool) -> None:
        self.store.reap(self.now, spare_leases=spare)

    @rule(kind=st.sampled_from([keys.queue, keys.wip, keys.deferred, keys.groups, keys.expiry]))
    def a_key_is_lost(self, kind: Key) -> None:
        self.client.delete(*(map(kind, PRIORITIES) if kind.suffix else [kind()]))
        self.store.at = self.now
        reconcile_some(self.store)
        self.store.reap(self.now, spare_leases=True)

    @rule(worker=WORKERS)
    def take_back(self, worker: str) -> None:
        before = {claim.execution: self._held(claim) for _, claim in self.claims}
        self.store.take_back(worker, self.now)
        for holder, claim in self.claims:
            assert self._held(claim) == (before[claim.execution] and holder != worker)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def a_worker_dies_and_another_takes_over(self, pick: int) -> None:
        self.time_passes(16)
        self.reap(False)
        self.claim("heir", 4, False)
        self.finish(pick, "success")

    @rule(prompt=st.integers(0, 3))
    def twins_are_submitted_and_the_last_is_cancelled(self, prompt: int) -> None:
        known = len(self.ids)
        for _ in range(2):
            self.submit(prompt, "default", True, None)
        if len(self.ids) > known:
            self.cancel(len(self.ids) - 1)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def a_job_fails_and_is_retried(self, pick: int) -> None:
        self.finish(pick, "failure")
        self.retry(self.ids.index(self.claims[pick % len(self.claims)][1].id))

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        assert census(self.client) == []
        assert {key.decode().removeprefix(keys.job()) for key in self.client.scan_iter(keys.job("*"))} == set(self.ids)

    @invariant()
    def jobs_with_a_start_tag_wait_in_the_order_of_their_tags(self) -> None:
        tagged = self.client.zrange(keys.start_tags("default"), 0, -1)
        listed = self.client.lrange(keys.queue("default"), 0, -1)
        assert [job_id for job_id in listed if job_id in tagged] == [job_id for job_id in tagged if job_id in listed]

    @invariant()
    def an_end_never_changes(self) -> None:
        jobs = {job_id: self.store.get(job_id) for job_id in set(self.ids)}
        for job_id, seen in self.ended.items():
            assert jobs[job_id] == seen
        self.ended |= {job_id: job for job_id, job in jobs.items() if job.status.is_terminal}

    @invariant()
    def nothing_that_lives_has_a_lifetime_and_nothing_that_ended_lacks_one(self) -> None:
        for job_id in set(self.ids):
            assert (self.client.ttl(keys.job(job_id)) >= 0) == (job_id in self.ended)

    @invariant()
    def whoever_joined_has_a_live_leader(self) -> None:
        for group in self.client.hvals(keys.groups()):
            lead = self.store.get(group.decode().split()[0])
            assert not lead.status.is_terminal

    def teardown(self) -> None:
        """Left alone, everything comes to its end."""
        for _ in range(40):
            if not self._live():
                break
            self.now += 20
            self.store.reap(self.now)
            for claim in self.store.claim("last", 12, self.now):
                self.store.finish("last", [success(claim)], self.now)
        assert not self._live()
        left = [kind(queue) for kind in (keys.queue, keys.wip, keys.deferred) for queue in PRIORITIES]
        assert self.client.exists(*left, keys.expiry()) == 0
        assert self.client.hgetall(keys.groups()) == {}

    def _live(self) -> list[str]:
        return [job_id for job_id in set(self.ids) if not self.store.get(job_id).status.is_terminal]

    def _pick(self, pick: int) -> str:
        return self.ids[pick % len(self.ids)]

    def _held(self, claim: Claim) -> bool:
        member = f"{claim.id}:{claim.execution}"
        held = self.client.zscore(keys.wip(claim.queue.priority), member) is not None
        assert not held or self.current[claim.id] == claim
        return held


def test_the_store_in_any_order(client: redis.Redis) -> None:
    steps = hypothesis_settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(lambda: StoreMachine(client), settings=steps)
