"""Claims come in and endings go out beside the engine, on fakeredis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from gpu_worker.batching import Batching
from gpu_worker.claim_io import ClaimIO
from promptq.contract.job import Status
from tests.fakes import TimedStore, submit, success
from tests.processes import wait_until

Start = Callable[..., ClaimIO]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts threads, and ends them."""
    started: list[ClaimIO] = []

    def start(store: TimedStore, mode: str = "continuous", wait: float = 0.0) -> ClaimIO:
        started.append(ClaimIO(store, "w", Batching(mode, 4, wait), lambda *_: None))
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
