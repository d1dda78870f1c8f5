"""What is kept of running jobs, and who goes on with it: on fakeredis and on a real server alike."""

from __future__ import annotations

from contextlib import suppress

import pytest
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from promptq.contract.job import Status
from promptq.contract.logprobs import token_logprob
from promptq.queue.progress import Append, Followed, Place, append, follow
from promptq.queue.records import Claim, Terms
from tests.fakes import IDENTITY, NOW, TimedStore, failure, keys, ran, submit, success

LEASE = 15


def start(store: TimedStore, resumes: str = IDENTITY, now: float = NOW, worker: str = "w") -> Claim:
    return store.claim(worker, 1, now, resumes=resumes)[0]


@pytest.fixture
def claim(store: TimedStore) -> Claim:
    """A running job that has generated three tokens."""
    submit(store, cache=False)
    claim = start(store)
    assert (claim.progress, claim.moves) == ((), 0)
    assert ran(store, claim, 0, (5, 6), "ab") == "ok"
    assert ran(store, claim, 2, (7,), "ç") == "ok"
    return claim


def test_nothing_is_kept_behind_a_gap(store: TimedStore, claim: Claim) -> None:
    """A server may come back without its last second; whoever goes on later must not go on behind a hole."""
    store.client.xdel(keys.progress(claim.id), "1-3")
    assert ran(store, claim, 3, (8,), "d") == "failed"
    store.client.delete(keys.progress(claim.id))
    assert ran(store, claim, 3, (8,), "d") == "failed"
    store.release([claim], NOW)
    assert start(store).progress == ()


def test_a_reader_learns_how_many_tokens_came_before(store: TimedStore, claim: Claim) -> None:
    (whole,) = follow(store, [Place(claim.id)], watch=False)
    (rest,) = follow(store, [Place(claim.id, claim.id, "1-2")], watch=False)
    assert (whole.before, rest.before) == (0, 2)
    assert whole.goes_on_behind("")
    assert rest.goes_on_behind("1-2")
    assert not rest.goes_on_behind("1-1")


def texts(store: TimedStore, job_id: str) -> list[tuple[str, str]]:
    entries = store.client.xrange(keys.progress(job_id))
    return [(entry.decode(), values[b"text"].decode()) for entry, values in entries]


def test_whoever_claims_a_job_that_was_put_back_gets_its_tokens(store: TimedStore, claim: Claim) -> None:
    store.release([claim], NOW)
    again = start(store)
    assert (again.id, again.progress, again.moves, again.attempts) == (claim.id, (5, 6, 7), 1, 1)
    assert ran(store, again, 3, (8,), "d") == "ok"
    assert texts(store, claim.id) == [("1-2", "ab"), ("1-3", "ç"), ("1-4", "d")]


def test_log_probabilities_are_kept_beside_the_tokens_and_told_to_readers(store: TimedStore) -> None:
    submit(store, cache=False)
    claim = start(store)
    told = [token_logprob(text.encode(), -0.5, [token_logprob(b"\xc3", -1.0)]) for text in "abc"]
    for before, ids in ((0, (5, 6)), (2, (7,))):
        one = Append(claim, before, ids, "x", tuple(told[before : before + len(ids)]))
        assert append(store, IDENTITY, [one]) == ["ok"]
    (read,) = follow(store, [Place(claim.id, claim.id, "1-2")], watch=False)
    assert list(read.logprobs) == told[2:]
    store.release([claim], NOW)
    again = start(store)
    assert (again.progress, list(again.logprobs)) == ((5, 6, 7), told)


@pytest.mark.parametrize("how", ["its lease ran out", "its worker died"])
def test_so_does_one_whose_worker_was_lost(store: TimedStore, claim: Claim, how: str) -> None:
    if how == "its worker died":
        store.take_back("w", NOW)
    else:
        store.reap(NOW + LEASE + 1)
    again = start(store)
    assert (again.progress, again.moves, again.attempts) == ((5, 6, 7), 1, 2)


def test_a_claim_whose_answer_was_lost_has_the_tokens_when_it_is_found_again(store: TimedStore, claim: Claim) -> None:
    store.release([claim], NOW)
    with suppress(ConnectionError), store._answered() as token:
        store.scripts.run(*store._claim_call("w", 1, Terms(resumes=IDENTITY), token))
        raise ConnectionError
    assert start(store).progress == (5, 6, 7)


@pytest.mark.parametrize("resumes", ["", "another-model@1:float32"])
def test_an_engine_that_cannot_go_on_starts_over_and_readers_learn_of_it(
    store: TimedStore, claim: Claim, resumes: str
) -> None:
    store.release([claim], NOW)
    again = start(store, resumes)
    assert (again.progress, again.moves) == ((), 1)
    assert texts(store, claim.id) == []
    assert ran(store, again, 0, (9,), "x") == "ok"
    assert texts(store, claim.id) == [("2-1", "x")], "the entries of the second start are behind those of the first"


def test_what_is_sent_again_is_kept_once(store: TimedStore, claim: Claim) -> None:
    assert ran(store, claim, 2, (7,), "ç") == "ok"
    assert texts(store, claim.id) == [("1-2", "ab"), ("1-3", "ç")]


def test_nothing_is_kept_of_a_claim_that_was_lost(store: TimedStore, claim: Claim) -> None:
    store.take_back("w", NOW)
    assert ran(store, claim, 3, (8,), "late") == "lost"
    again = start(store)
    assert ran(store, claim, 3, (8,), "late") == "lost"
    store.finish("w", [success(again)], NOW)
    assert ran(store, again, 3, (8,), "later") == "lost"
    assert texts(store, claim.id) == [("1-2", "ab"), ("1-3", "ç")]


def test_one_job_whose_key_is_no_stream_costs_the_others_nothing(store: TimedStore, claim: Claim) -> None:
    submit(store, cache=False)
    other = start(store)
    store.client.set(keys.progress(other.id), "mine", ex=60)
    both = [Append(other, 0, (1,), "a"), Append(claim, 3, (8,), "d")]
    assert append(store, IDENTITY, both) == ["failed", "ok"]
    store.release([other], NOW)
    assert start(store).progress == ()


def test_it_lives_a_day_at_most_and_a_minute_after_the_end(store: TimedStore, claim: Claim) -> None:
    assert 86_000 < store.client.ttl(keys.progress(claim.id)) <= 86_400
    store.finish("w", [success(claim)], NOW)
    assert 0 < store.client.ttl(keys.progress(claim.id)) <= 60


def test_a_job_cancelled_while_it_waits_to_go_on_keeps_it_a_minute(store: TimedStore, claim: Claim) -> None:
    store.release([claim], NOW)
    assert store.cancel(claim.id, NOW) is Status.CANCELLED
    assert 0 < store.client.ttl(keys.progress(claim.id)) <= 60


@pytest.mark.parametrize("by", ["retry", "rq requeue"])
def test_a_new_life_begins_at_the_beginning(store: TimedStore, claim: Claim, by: str) -> None:
    store.finish("w", [failure(claim)], NOW)
    if by == "retry":
        store.retry(claim.id, NOW)
    else:
        RqJob.fetch(claim.id, store.client, JSONSerializer).requeue()
    again = start(store, now=NOW + 1)
    assert (again.id, again.progress, again.moves, again.attempts) == (claim.id, (), 0, 1)
    assert ran(store, again, 0, (5,), "a") == "ok"
    assert texts(store, claim.id) == [("2-1", "a")]


def test_the_text_may_be_anything_and_tokens_many(store: TimedStore, claim: Claim) -> None:
    ids = tuple(range(3, 3 + 5000))
    assert ran(store, claim, 3, ids, '\x00\n"\U0001f600' * 100) == "ok"
    store.release([claim], NOW)
    assert start(store).progress == (5, 6, 7, *ids)


def followed(store: TimedStore, job_id: str, source: str = "", last: str = "", *, watch: bool = False) -> Followed:
    return follow(store, [Place(job_id, source, last)], watch=watch)[0]


class TestFollow:
    def test_a_reader_gets_what_came_since_it_last_looked(self, store: TimedStore, claim: Claim) -> None:
        assert followed(store, claim.id) == Followed(Status.RUNNING, 0, claim.id, [("1-2", "ab"), ("1-3", "ç")])
        assert followed(store, claim.id, claim.id, "1-2").entries == [("1-3", "ç")]
        assert followed(store, claim.id, claim.id, "1-3").entries == []
        assert followed(store, "nobody") == Followed(None, 0, "nobody", [])

    def test_once_watched_a_job_is_watched_to_its_end_by_every_worker(self, store: TimedStore, claim: Claim) -> None:
        assert not claim.watched
        followed(store, claim.id, watch=True)
        assert ran(store, claim, 3, (8,), "d") == "watched"
        store.release([claim], NOW)
        assert start(store).watched

    def test_readers_of_a_joined_job_get_its_leader_s_text(self, store: TimedStore) -> None:
        leader, joined = submit(store).job.id, submit(store).job.id
        claim = start(store)
        ran(store, claim, 0, (1,), "a")
        assert followed(store, joined, watch=True) == Followed(Status.QUEUED, 0, leader, [("1-1", "a")])
        assert ran(store, claim, 1, (2,), "b") == "watched"
        store.finish("w", [failure(claim)], NOW)
        assert followed(store, joined, leader, "1-2") == Followed(Status.QUEUED, 0, joined, [])

    def test_after_a_start_over_its_readers_get_the_new_text_alone(self, store: TimedStore, claim: Claim) -> None:
        store.release([claim], NOW)
        again = start(store, resumes="")
        assert followed(store, claim.id, claim.id, "1-3") == Followed(Status.RUNNING, 1, claim.id, [])
        ran(store, again, 0, (9,), "x")
        assert followed(store, claim.id, claim.id, "1-3") == Followed(Status.RUNNING, 1, claim.id, [("2-1", "x")])

    def test_an_ended_job_is_followed_but_not_watched(self, store: TimedStore, claim: Claim) -> None:
        store.finish("w", [success(claim)], NOW)
        assert followed(store, claim.id, claim.id, "1-3", watch=True).status is Status.SUCCEEDED
        assert not store.client.hexists(keys.job(claim.id), "watched")
