"""The result cache and the joining of twins, on fakeredis and on a real server alike."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from promptq.contract.job import Status
from promptq.queue.observe import Observer
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, new_job, places, submit, success, with_settings

TTL = 300


def answer(store: TimedStore, prompt: str = "hello", text: str = "Paris") -> str:
    """The id of a job that has run."""
    job = submit(store, prompt).job
    assert store.finish("w", [success(store.claim("w", 1, NOW)[0], text)], NOW) == [True]
    return job.id


def age(store: TimedStore, job_id: str, seconds: float) -> None:
    """Let a text be older by this, by the server's clock."""
    ((entry, fields),) = store.client.xrange(keys.results(job_id))
    older = f"{int(entry.split(b'-')[0]) - int(1000 * seconds)}-0"
    store.client.delete(keys.results(job_id))
    store.client.xadd(keys.results(job_id), fields, id=older)
    store.client.hset(keys.cache_new(), new_job().cache_key(store.settings), f"{older} {job_id}")


def turn(store: TimedStore) -> None:
    """Let the new generation be as old as a text may be."""
    store.client.pexpire(keys.cache_new(), 1000 * TTL)


class TestCache:
    def test_the_same_request_is_answered_from_the_cache(self, store: TimedStore) -> None:
        submit(store)
        store.finish("w", [success(store.claim("w", 1, NOW)[0], "Paris")], NOW)
        again = submit(store, now=NOW + 1)
        assert (again.outcome, again.job.result.text) == ("hit", "Paris")
        assert store.client.hget(keys.totals(), "hits") == b"1"
        seen = store.get(again.job.id)
        assert (seen.status, seen.cache, seen.result.text) == (Status.SUCCEEDED, "hit", "Paris")
        assert places(store, again.job.id) == ["rq:finished:default"]

    def test_a_lifetime_of_zero_turns_the_cache_off(self, store: TimedStore) -> None:
        store = with_settings(store, cache_ttl_seconds=0)
        assert [submit(store).outcome for _ in range(2)] == ["new", "new"]

    def test_a_text_answers_for_its_lifetime(self, store: TimedStore) -> None:
        job = answer(store)
        age(store, job, TTL - 5)
        assert submit(store).outcome == "hit"
        age(store, job, 10)
        assert submit(store).outcome == "new"

    def test_the_last_text_answers(self, store: TimedStore) -> None:
        age(store, answer(store, text="Lyon"), TTL)
        turn(store)
        answer(store, text="Paris")
        assert submit(store).job.result.text == "Paris"

    def test_each_is_forgotten_when_the_last_of_its_generation_is_too_old(self, store: TimedStore) -> None:
        observer = Observer(store.client, store.settings)
        answer(store, "a")
        turn(store)
        answer(store, "b")
        assert observer.cache_entries() == 2
        assert [submit(store, prompt).outcome for prompt in "ab"] == ["hit", "hit"]
        turn(store)
        answer(store, "c")
        assert observer.cache_entries() == 2
        assert [submit(store, prompt).outcome for prompt in "abc"] == ["new", "hit", "hit"]

    def test_what_comes_into_a_generation_does_not_prolong_it(self, store: TimedStore) -> None:
        answer(store, "a")
        store.client.pexpire(keys.cache_new(), 1500 * TTL)
        answer(store, "b")
        assert store.client.pttl(keys.cache_new()) <= 1500 * TTL

    def test_what_nothing_follows_goes_by_itself(self, store: TimedStore) -> None:
        answer(store, "a")
        assert 2 * TTL - 60 < store.client.ttl(keys.cache_new()) <= 2 * TTL
        turn(store)
        answer(store, "b")
        assert TTL - 60 < store.client.ttl(keys.cache_old()) <= TTL

    def test_a_shorter_lifetime_takes_effect_at_once(self, store: TimedStore) -> None:
        answer(store, "a")
        short = with_settings(store, cache_ttl_seconds=5)
        answer(short, "b")
        assert store.client.ttl(keys.cache_new()) <= 10
        assert [submit(short, prompt).outcome for prompt in "ab"] == ["hit", "hit"]

    def test_a_text_is_there_once(self, store: TimedStore) -> None:
        job = answer(store)
        entries: Any = store.client.xrange(keys.results(job))
        ((entry, _),) = entries
        assert list(store.client.hgetall(keys.cache_new()).values()) == [entry + b" " + job.encode()]

    def test_an_id_that_is_used_again_answers_with_the_right_text(self, store: TimedStore) -> None:
        """Its first job is gone, by RQ or in time; its first text may not be."""
        for prompt, text in (("France?", "Paris"), ("Spain?", "Madrid")):
            store.submit(new_job(prompt, job_id="mine", keep=9), NOW)
            store.finish("w", [success(store.claim("w", 1, NOW)[0], text)], NOW)
            store.client.delete(keys.job("mine"))
        assert submit(store, "France?").job.result.text == "Paris"
        assert submit(store, "Spain?").job.result.text == "Madrid"
        store.client.delete(keys.results("mine"))
        store.client.xadd(keys.results("mine"), {"type": "1", "return_value": "another"})
        assert submit(store, "France?").outcome == "new"

    @pytest.mark.parametrize("own", [None, 2])
    def test_it_outlives_a_job_that_is_kept_for_less(self, store: TimedStore, own: int | None) -> None:
        store = with_settings(store, result_ttl_seconds=1 if own is None else 3600)
        new = new_job(key="k" if own else "", keep=own)
        store.submit(new, NOW)
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
        assert store.client.ttl(keys.job(new.id)) <= 2
        assert TTL - 60 < store.client.ttl(keys.results(new.id)) <= TTL
        store.client.delete(keys.job(new.id))
        assert submit(store).outcome == "hit"

    def test_nor_does_it_shorten_what_is_kept_for_longer(self, store: TimedStore) -> None:
        new = new_job(key="k", keep=90_000)
        store.submit(new, NOW)
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
        assert store.client.ttl(keys.results(new.id)) > 89_000

    def test_one_that_was_deleted_answers_no_more(self, store: TimedStore) -> None:
        store.client.delete(keys.results(answer(store)))
        assert submit(store).outcome == "new"

    def test_nor_one_whose_result_is_something_else(self, store: TimedStore) -> None:
        store.client.delete(key := keys.results(answer(store)))
        store.client.set(key, "no stream")
        assert submit(store).outcome == "new"

    def test_a_later_life_that_fails_takes_no_text_away(self, store: TimedStore) -> None:
        store.client.xadd(keys.results(answer(store)), {"type": "2", "exc_string": "x"})
        assert submit(store).outcome == "hit"

    def test_trouble_with_it_keeps_no_ending_from_being_announced(self, store: TimedStore) -> None:
        job = submit(store).job
        (claim,) = store.claim("w", 1, NOW)
        store.client.set(keys.cache_new(), "what somebody else wrote", ex=TTL + 10)
        with pytest.raises(redis.ResponseError):
            store.finish("w", [success(claim)], NOW)
        assert places(store, job.id) == ["rq:finished:default"]
        assert store.client.hget(keys.totals(), "succeeded") == b"1"


class TestJoin:
    @pytest.mark.parametrize("fields", [{"temperature": 0.7}, {"cache": False}])
    def test_random_and_uncached_requests_stay_apart(self, store: TimedStore, fields: dict[str, object]) -> None:
        assert [submit(store, **fields).outcome for _ in range(2)] == ["new", "new"]
        store.finish("w", [success(claim) for claim in store.claim("w", 2, NOW)], NOW)
        assert submit(store, **fields).outcome == "new"

    def test_a_seed_makes_a_random_request_shareable(self, store: TimedStore) -> None:
        outcomes = [submit(store, temperature=0.7, seed=seed).outcome for seed in (1, 1, 2)]
        assert outcomes == ["new", "join", "new"]

    def test_joined_jobs_share_one_generation(self, store: TimedStore) -> None:
        jobs = [submit(store).job for _ in range(20)]
        claims = store.claim("w", 20, NOW)
        assert [claim.id for claim in claims] == [jobs[0].id]
        assert places(store, jobs[7].id) == ["rq:deferred:default"]
        store.finish("w", [success(claims[0], "shared")], NOW)
        assert {store.get(job.id).result.text for job in jobs} == {"shared"}
        assert {store.get(job.id).cache for job in jobs} == {"miss", "join"}
        assert not store.client.exists(keys.groups())

    def test_twins_are_one_group_in_their_order(self, store: TimedStore) -> None:
        other = submit(store, "other").job
        first, second, third = (submit(store).job.id for _ in range(3))
        assert sorted(store.client.hvals(keys.groups())) == sorted(
            [other.id.encode(), f"{first} {second} {third}".encode()]
        )
        store.cancel(second, NOW)
        assert f"{first} {third}".encode() in store.client.hvals(keys.groups())
        store.cancel(third, NOW)
        assert first.encode() in store.client.hvals(keys.groups())
        store.finish("w", [success(claim) for claim in store.claim("w", 2, NOW)], NOW)
        assert not store.client.exists(keys.groups())

    @pytest.mark.parametrize("how", ["fails", "is cancelled waiting", "is cancelled running", "expires", "is lost"])
    def test_when_the_leader_ends_without_a_text_the_next_one_leads(self, store: TimedStore, how: str) -> None:
        lead, heir, third = submit(store, ttl_seconds=5).job, submit(store).job, submit(store).job
        if how == "is cancelled waiting":
            store.cancel(lead.id, NOW)
        elif how == "expires":
            store.reap(NOW + 6)
        elif how == "is lost":
            for attempt in range(3):
                store.claim("w", 1, NOW + attempt * 20)
                store.reap(NOW + attempt * 20 + 16)
        else:
            (claim,) = store.claim("w", 1, NOW)
            store.finish("w", [failure(claim) if how == "fails" else cancelled(claim)], NOW)
        assert store.get(lead.id).status.is_terminal
        (claim,) = store.claim("w", 5, NOW + 100)
        assert claim.id == heir.id
        store.finish("w", [success(claim, "late")], NOW + 101)
        assert store.get(third.id).result.text == "late"

    def test_a_joined_job_has_its_own_cancel_and_deadline(self, store: TimedStore) -> None:
        lead, hurried, tired = submit(store).job, submit(store, ttl_seconds=5).job, submit(store).job
        assert store.cancel(tired.id, NOW) is Status.CANCELLED
        assert store.reap(NOW + 6).expired == 1
        store.finish("w", [success(store.claim("w", 1, NOW + 7)[0])], NOW + 8)
        states = [store.get(job.id).status.value for job in (lead, hurried, tired)]
        assert states == ["succeeded", "expired", "cancelled"]

    def test_a_leader_deleted_behind_our_back_is_replaced_by_the_reaper(self, store: TimedStore) -> None:
        lead, heir = submit(store).job, submit(store).job
        store.client.delete(keys.job(lead.id))
        store.reap(NOW)
        assert [claim.id for claim in store.claim("w", 5, NOW)] == [heir.id]
