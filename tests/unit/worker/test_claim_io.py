"""Claims come in and endings go out beside the engine, on fakeredis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpu_worker.batching import Batching
from gpu_worker.claim_io import ClaimIO
from gpu_worker.preemption import Preemption
from gpu_worker.returns import Returned
from gpu_worker.run_traces import NO_RUN_TRACES
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Status
from promptq.queue.records import Claim
from tests.fakes import TimedStore, submit, success
from tests.processes import wait_until

Start = Callable[..., ClaimIO]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts threads, and ends them."""
    started: list[ClaimIO] = []

    def start(store: TimedStore, mode: str = "continuous", wait: float = 0.0, **options: Any) -> ClaimIO:
        started.append(ClaimIO(store, "w", Batching(mode, 4, wait), NO_RUN_TRACES, **options))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close(5)


def test_it_claims_for_free_slots_and_again_when_they_free_up(start: Start, fake_store: TimedStore) -> None:
    ids = [submit(fake_store, cache=False).job.id for _ in range(6)]
    claim_io = start(fake_store)
    first = claim_io.take(9, 5)
    assert [claim.id for claim in first] == ids[:4]
    assert claim_io.take(9, 0.05) == []
    claim_io.deliver([success(first[0]), success(first[1])])
    rest = wait_until(lambda: claim_io.take(9, 1))
    assert [claim.id for claim in rest] == ids[4:]
    assert len(claim_io.held()) == 4
    claim_io.close(5)
    assert fake_store.get(ids[0]).status is Status.SUCCEEDED


def test_a_wake_brings_new_work(start: Start, fake_store: TimedStore) -> None:
    claim_io = start(fake_store)
    assert claim_io.take(9, 0.1) == []
    submit(fake_store)
    claim_io.wake()
    assert len(claim_io.take(9, 5)) == 1
    claim_io.close(5)


def test_a_static_batch_waits_to_fill_and_then_closes(start: Start, fake_store: TimedStore) -> None:
    claim_io = start(fake_store, "static", wait=0.3)
    submit(fake_store, cache=False)
    claim_io.wake()
    time.sleep(0.1)
    assert claim_io.take(9) == []
    submit(fake_store, cache=False)
    claim_io.wake()
    assert len(claim_io.take(9, 5)) == 2
    submit(fake_store, cache=False)
    claim_io.wake()
    assert claim_io.take(9, 0.2) == []
    claim_io.close(5)


def test_after_the_stop_it_claims_nothing_and_gives_up_what_was_not_started(
    start: Start, fake_store: TimedStore
) -> None:
    submit(fake_store)
    claim_io = start(fake_store, "static", wait=60)
    wait_until(claim_io.held)
    unstarted = claim_io.stop_claiming()
    assert len(unstarted) == 1
    submit(fake_store, cache=False)
    claim_io.wake()
    assert claim_io.take(9, 0.2) == []
    assert claim_io.held() == []
    claim_io.close(5)


def test_no_more_is_taken_than_the_engine_has_room_for(start: Start, fake_store: TimedStore) -> None:
    """The row of a lost claim holds its slot until the engine's next step; the claim for it may come before."""
    ids = [submit(fake_store, cache=False).job.id for _ in range(3)]
    claim_io = start(fake_store)
    assert [claim.id for claim in claim_io.take(2, 5)] == ids[:2]
    assert claim_io.take(0) == []
    assert [claim.id for claim in claim_io.take(2)] == ids[2:]


def test_what_is_given_back_is_first_in_line_with_its_attempt(start: Start, fake_store: TimedStore) -> None:
    first = submit(fake_store, cache=False).job
    claim_io = start(fake_store)
    claims = claim_io.take(9, 5)
    claim_io.stop_claiming()
    submit(fake_store, cache=False)
    claim_io.give_back(claims)
    assert claim_io.held() == []
    (again,) = fake_store.claim("other", 1)
    assert (again.id, again.attempts) == (first.id, 1)


def test_which_jobs_are_here(start: Start, fake_store: TimedStore) -> None:
    job = submit(fake_store, cache=False).job
    claim_io = start(fake_store)
    (claim,) = claim_io.take(9, 5)
    assert claim_io.holds(job.id)
    assert not claim_io.holds("another")
    claim_io.deliver([success(claim)])
    wait_until(lambda: not claim_io.holds(job.id))


def test_an_ending_that_cannot_be_stored_fails_its_job_and_holds_nobody_up(
    start: Start, fake_store: TimedStore
) -> None:
    odd, sane = (submit(fake_store, cache=False).job for _ in range(2))
    claim_io = start(fake_store)
    claims = {claim.id: claim for claim in claim_io.take(9, 5)}
    claim_io.deliver([success(claims[odd.id], "\ud800"), success(claims[sane.id], "text")])
    wait_until(lambda: not claim_io.held())
    failed = fake_store.get(odd.id)
    assert (failed.status, failed.error.type) == (Status.FAILED, "engine_error")
    assert fake_store.get(sane.id).result.text == "text"


def full_of(priority: str, start: Start, store: TimedStore, **options: Any) -> tuple[ClaimIO, list[Claim]]:
    for _ in range(6):
        submit(store, cache=False, priority=priority)
    claim_io = start(store, preemption=Preemption("high"), **options)
    claims = claim_io.take(9, 5)
    assert len(claims) == 4
    return claim_io, claims


def test_urgent_jobs_are_claimed_for_slots_that_less_urgent_ones_have(start: Start, fake_store: TimedStore) -> None:
    claim_io, claims = full_of("low", start, fake_store)
    urgent = [submit(fake_store, cache=False, priority="high").job.id for _ in range(6)]
    claim_io.wake("high")
    wait_until(lambda: claim_io.waiting() == ["high"] * 4)
    claim_io.put_back([Returned(claim, "preempted") for claim in claims])
    wait_until(lambda: len(claim_io.held()) == 4)
    assert [claim.id for claim in claim_io.take(4)] == urgent[:4]
    assert [fake_store.get(claim.id).status for claim in claims] == [Status.QUEUED] * 4
    claim_io.wake("high")
    assert claim_io.take(9, 0.1) == [], "urgent jobs do not give way to each other"


def test_urgent_jobs_are_claimed_where_memory_and_not_slots_are_short(start: Start, fake_store: TimedStore) -> None:
    """And they stay, beyond what the engine takes, until others have given way; patient ones go back."""
    claim_io, claims = full_of("low", start, fake_store)
    claim_io.deliver([success(claim) for claim in claims[2:]])
    claim_io.limit(2)
    wait_until(lambda: claim_io.waiting() == [])
    urgent = submit(fake_store, cache=False, priority="high").job.id
    claim_io.wake("high")
    wait_until(lambda: claim_io.waiting() == ["high"])
    claim_io.limit(2)
    assert claim_io.waiting() == ["high"]
    claim_io.put_back([Returned(claims[0], "preempted")])
    assert [claim.id for claim in claim_io.take(1)] == [urgent]


@pytest.mark.parametrize(("running", "comes"), [("low", "default"), ("high", "high")])
def test_others_wait_for_a_free_slot(start: Start, fake_store: TimedStore, running: str, comes: str) -> None:
    claim_io, _ = full_of(running, start, fake_store)
    submit(fake_store, cache=False, priority=comes)
    claim_io.wake(comes)
    claim_io.wake()
    assert claim_io.take(9, 0.1) == []
    assert len(claim_io.held()) == 4


def test_what_an_engine_does_not_take_goes_back_and_no_more_is_claimed(start: Start, fake_store: TimedStore) -> None:
    ids = [submit(fake_store, cache=False).job.id for _ in range(6)]
    claim_io = start(fake_store)
    (running,) = wait_until(lambda: claim_io.take(1))
    wait_until(lambda: len(claim_io.held()) == 4)
    claim_io.limit(2)
    wait_until(lambda: len(claim_io.held()) == 2)
    jobs = [fake_store.get(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.RUNNING] * 2 + [Status.QUEUED] * 4
    assert [job.attempts for job in jobs] == [1, 1, 0, 0, 0, 0]
    claim_io.wake()
    assert [claim.id for claim in claim_io.take(9, 0.1)] == ids[1:2]
    claim_io.limit(4)
    assert [claim.id for claim in wait_until(lambda: len(claim_io.held()) == 4 and claim_io.take(9))] == ids[2:4]
    assert running.id == ids[0]


def test_what_goes_back_is_put_back_by_its_reason(start: Start, fake_store: TimedStore) -> None:
    ids = [submit(fake_store, cache=False).job.id for _ in range(3)]
    claim_io = start(fake_store)
    claims = wait_until(lambda: len(claim_io.held()) == 3 and claim_io.take(9))
    claim_io.stop_claiming()
    reasons = (("preempted", ""), ("upstream", ""), ("lost", "it broke off"))
    claim_io.put_back([Returned(claim, *reason) for claim, reason in zip(claims, reasons, strict=True)])
    wait_until(lambda: not claim_io.held())
    assert [fake_store.get(job_id).attempts for job_id in ids] == [0, 0, 1]
    totals = fake_store.client.hgetall(fake_store.keys.totals())
    assert {name: totals[name] for name in totals if name.startswith(b"requeued")} == {
        b"requeued:preempted": b"1", b"requeued:upstream": b"1", b"requeued:upstream_lost": b"1",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["static", "off"])
def test_a_batch_that_must_end_first_gives_no_slot(start: Start, fake_store: TimedStore, mode: str) -> None:
    submit(fake_store, cache=False, priority="low")
    claim_io = start(fake_store, mode, preemption=Preemption("high"))
    assert len(claim_io.take(9, 5)) == 1
    submit(fake_store, cache=False, priority="high")
    claim_io.wake("high")
    assert claim_io.take(9, 0.1) == []


def test_what_gave_way_is_held_until_its_progress_is_kept(start: Start, fake_store: TimedStore) -> None:
    """Redis may be away just then; and what keeps the progress may fail in a way of its own."""
    errors: list[Exception] = [RedisUnavailable("away"), ValueError("no progress")]
    kept: list[list[Claim]] = []

    def keep(claims: list[Claim]) -> None:
        kept.append(list(claims))
        raise errors.pop(0)

    claim_io, claims = full_of("low", start, fake_store, keep=keep)
    claim_io.stop_claiming()
    claim_io.put_back([Returned(claims[0], "preempted")])
    wait_until(lambda: kept)
    assert claims[0] in claim_io.held()
    wait_until(lambda: claims[0] not in claim_io.held())
    assert kept == [claims[:1]] * 2
    (again,) = fake_store.claim("other", 1)
    assert (again.id, again.preemptions) == (claims[0].id, 1)


def test_what_gave_way_is_put_back_before_the_thread_ends(start: Start, fake_store: TimedStore) -> None:
    claim_io, claims = full_of("low", start, fake_store)
    claim_io.stop_claiming()
    claim_io.put_back([Returned(claim, "preempted") for claim in claims])
    claim_io.close(5)
    assert [fake_store.get(claim.id).status for claim in claims] == [Status.QUEUED] * 4


def test_endings_are_stored_while_what_gave_way_cannot_be_put_back(start: Start, fake_store: TimedStore) -> None:
    """As with a server that is full: it keeps no progress, but takes endings."""

    is_full = [True]

    def keep(_: list[Claim]) -> None:
        if is_full[0]:
            raise RedisUnavailable("full")

    claim_io, claims = full_of("low", start, fake_store, keep=keep)
    claim_io.stop_claiming()
    claim_io.put_back([Returned(claims[0], "preempted")])
    claim_io.deliver([success(claims[1])])
    wait_until(lambda: fake_store.get(claims[1].id).status is Status.SUCCEEDED)
    assert claims[0] in claim_io.held()
    is_full[0] = False
    wait_until(lambda: claims[0] not in claim_io.held())
