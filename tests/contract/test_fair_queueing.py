"""Shares of a queue: several API keys take turns, whoever submits how many. On fakeredis and on a real server."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import pytest
import redis
from rq import Queue
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from promptq.contract.errors import QueueFull, RedisUnavailable
from promptq.contract.settings import WorkerSettings
from promptq.queue.activity import recent
from promptq.queue.observe import Observer
from promptq.queue.reconcile import reconcile_some
from tests.fakes import NOW, TimedStore, failure, keys, new_job, success, with_settings

TAGS = (keys.start_tags("default"), keys.finish_tags("default"))


def put(store: TimedStore, owner: str, jobs: int = 1, weight: float = 1.0, **fields: object) -> list[str]:
    """Submit so many jobs of a key, in one script; their ids say whose they are."""
    first = store.client.incrby("number", jobs) - jobs
    made = [new_job(f"{owner}{first + n}", job_id=f"{owner}{first + n:06}", **fields) for n in range(jobs)]
    admitted = store.submit_many([replace(new, owner=owner, weight=weight) for new in made], NOW)
    refused = [one for one in admitted if isinstance(one, Exception)]
    if refused:
        raise refused[0]
    return [new.id for new in made]


def waiting(store: TimedStore, queue: str = "default") -> list[str]:
    return [job_id.decode() for job_id in store.client.lrange(keys.queue(queue), 0, -1)]


def owners(ids: Sequence[str]) -> str:
    return "".join(job_id[0] for job_id in ids)


def served(store: TimedStore, jobs: int) -> str:
    """Whose jobs the next claims get, one by one."""
    return owners([claim.id for _ in range(jobs) for claim in store.claim("w", 1, NOW)])


class TestTurns:
    def test_two_keys_take_turns_whoever_came_first(self, store: TimedStore) -> None:
        put(store, "a", 20)
        put(store, "b", 3)
        assert owners(waiting(store)) == "abababa" + 16 * "a"

    def test_a_key_that_comes_while_another_is_served_is_next(self, store: TimedStore) -> None:
        put(store, "a", 20)
        assert served(store, 5) == "aaaaa"
        put(store, "b", 3)
        assert served(store, 8) == "bababaaa"

    def test_a_share_follows_its_weight(self, store: TimedStore) -> None:
        put(store, "a", 12)
        put(store, "b", 12, weight=3)
        assert Counter(owners(waiting(store))[:12]) == {"b": 9, "a": 3}

    def test_one_job_at_a_time_gets_no_more_than_its_share(self, store: TimedStore) -> None:
        put(store, "a", 50)
        order = ""
        for _ in range(10):
            put(store, "b")
            order += served(store, 2)
        assert Counter(order) == {"a": 10, "b": 10}

    def test_a_key_that_was_served_alone_owes_nothing(self, store: TimedStore) -> None:
        put(store, "a", 30)
        served(store, 30)
        put(store, "a", 5)
        put(store, "b", 5)
        assert Counter(owners(waiting(store))[:6]) == {"a": 3, "b": 3}

    def test_priorities_have_turns_of_their_own(self, store: TimedStore) -> None:
        put(store, "a", 5)
        put(store, "a", 3, priority="high")
        put(store, "b", 1, priority="high")
        put(store, "b", 1)
        assert (owners(waiting(store, "high")), owners(waiting(store))) == ("abaa", "abaaaa")

    def test_jobs_of_one_key_and_of_none_wait_as_they_came(self, store: TimedStore) -> None:
        put(store, "a", 3, weight=0)
        store.submit(new_job("nobody's", job_id="nobody"), NOW)
        put(store, "a", 1, weight=0)
        assert owners(waiting(store)) == "aaana"
        assert store.client.exists(*TAGS) == 0


@pytest.mark.parametrize("seed", range(2))
def test_keys_that_wait_together_are_served_together(store: TimedStore, seed: int) -> None:
    """Goyal's theorem: while two keys wait, what they got by their weights differs by one job of each at most."""
    chance = random.Random(seed)
    weights = {"a": 1.0, "b": 2.0, "c": 0.5}
    sent: dict[str, deque[str]] = {owner: deque() for owner in weights}
    since: dict[frozenset[str], Counter[str]] = {}
    for _ in range(40):
        if chance.random() < 0.5:
            owner = chance.choice("abc")
            sent[owner] += put(store, owner, chance.randint(1, 6), weights[owner])
        pairs = [frozenset(pair) for pair in ("ab", "bc", "ac") if all(sent[owner] for owner in pair)]
        since = {pair: since.get(pair, Counter()) for pair in pairs}
        for claim in store.claim("w", chance.randint(0, 4), NOW):
            assert claim.id == sent[claim.id[0]].popleft(), "each key's own jobs stay in their order"
            for pair in [pair for pair in since if claim.id[0] in pair]:
                one, other = sorted(pair)
                since[pair][claim.id[0]] += 1
                got = since[pair][one] / weights[one] - since[pair][other] / weights[other]
                assert abs(got) <= 1 / weights[one] + 1 / weights[other] + 1e-9
                if not all(sent[owner] for owner in pair):
                    del since[pair]


class TestPlaces:
    def test_far_and_near_the_end_a_place_is_the_same(self, store: TimedStore) -> None:
        put(store, "a", 160)
        jobs = [store.submit(replace(new_job(job_id=f"b{n:06}", cache=False), owner="b"), NOW).job for n in range(9)]
        positions = [1 + 2 * n for n in range(9)]
        assert [job.queue_position for job in jobs] == positions
        assert [store.get(job.id).queue_position for job in jobs] == positions
        put(store, "b", 150)
        assert owners(waiting(store)) == 159 * "ab" + "a"

    def test_rqs_tools_see_the_order_of_service(self, store: TimedStore) -> None:
        put(store, "a", 6)
        put(store, "b", 3)
        queue = Queue("default", connection=store.client, serializer=JSONSerializer)
        assert owners(queue.get_job_ids()) == "abababaaa"
        assert owners([str(queue.pop_job_id()) for _ in range(4)]) == "abab"
        put(store, "c", 2)
        assert served(store, 7) == "cabcaaa"

    def test_what_rqs_tools_take_away_is_forgotten(self, store: TimedStore) -> None:
        put(store, "a", 4)
        gone = put(store, "a", 3)
        queue = Queue("default", connection=store.client, serializer=JSONSerializer)
        for job_id in gone[:2]:
            RqJob.fetch(job_id, connection=store.client, serializer=JSONSerializer).cancel()
        store.client.lrem(keys.queue("default"), 1, gone[2])
        put(store, "b", 6)
        assert owners(waiting(store)) == "ababababbb"
        assert store.client.zscore(TAGS[0], gone[2]) is None
        queue.empty()
        put(store, "c", 1)
        assert (owners(waiting(store)), store.client.zcard(TAGS[0])) == ("c", 1)

    def test_a_lost_key_costs_the_order_only(self, store: TimedStore) -> None:
        put(store, "a", 4)
        store.client.hset(TAGS[1], "b", "99999999000 1000")
        store.client.delete(TAGS[0])
        put(store, "b", 2)
        assert owners(waiting(store)) == "aaaabb"
        store.client.delete(keys.queue("default"))
        reconcile_some(store)
        assert len(waiting(store)) == 6


class TestWhatGoesBackOrAway:
    def test_jobs_given_back_are_first_again(self, store: TimedStore) -> None:
        put(store, "a", 40)
        claims = store.claim("w", 20, NOW)
        store.release(claims[-2:], NOW)
        put(store, "b", 3)
        assert waiting(store)[:2] == [claim.id for claim in claims[-2:]]
        assert owners(waiting(store))[2:10] == "bababaaa"

    def test_a_cancelled_job_is_not_charged_when_none_waits_behind_it(self, store: TimedStore) -> None:
        put(store, "b", 30)
        for job_id in put(store, "a", 20)[2:]:
            store.cancel(job_id, NOW)
        put(store, "a", 2)
        assert owners(waiting(store))[:8] == "babababa"

    def test_an_expired_job_is_not_charged_either(self, store: TimedStore) -> None:
        put(store, "b", 30)
        put(store, "a", 20, ttl_seconds=5)
        store.reap(NOW + 6)
        put(store, "a", 2)
        assert owners(waiting(store))[:6] == "bbabab"

    def test_a_job_cancelled_in_the_middle_leaves_the_order_of_its_key(self, store: TimedStore) -> None:
        put(store, "b", 10)
        first, second, third = put(store, "a", 3)
        store.cancel(second, NOW)
        (last,) = put(store, "a")
        assert [job_id for job_id in waiting(store) if job_id.startswith("a")] == [first, third, last]

    def test_a_retry_takes_its_turn(self, store: TimedStore) -> None:
        dead = put(store, "a", 10)
        store.finish("w", [failure(claim) for claim in store.claim("w", 10, NOW)], NOW)
        put(store, "b", 10)
        for job_id in dead:
            store.retry(job_id, NOW)
        put(store, "c", 1)
        assert owners(waiting(store))[:7] == "bacbaba"

    def test_the_oldest_job_is_seen_though_a_newer_one_is_first(self, store: TimedStore) -> None:
        put(store, "b", 9)
        served(store, 1)
        store.submit(replace(new_job("new"), owner="a"), NOW + 50)
        observer = Observer(store.client, store.settings, clock=lambda: NOW + 60)
        assert [queue.oldest_age_seconds for queue in observer.queues()] == [0, 60, 0]
        assert store.get(waiting(store)[0]).owner == "a"

    def test_the_status_page_shows_the_last_one_wherever_it_waits(self, store: TimedStore) -> None:
        put(store, "b", 30)
        last = store.submit(replace(new_job("new"), owner="a"), NOW + 50).job.id
        assert recent(store, 5)[0] == last

    def test_nothing_is_left_of_an_empty_queue(self, store: TimedStore) -> None:
        put(store, "a", 2)
        put(store, "b", 2)
        store.finish("w", [success(claim) for claim in store.claim("w", 4, NOW)], NOW)
        store.reap(NOW)
        assert store.client.exists(*TAGS) == 0


class TestTheBound:
    def test_a_key_that_fills_the_queue_keeps_no_other_out(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=50)
        with pytest.raises(QueueFull) as caught:
            put(store, "a", 60)
        assert caught.value.depth == len(waiting(store)) == 45
        put(store, "b", 3)
        assert served(store, 6) == "ababab"

    def test_the_bound_holds_for_all_together(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=50)
        for owner in "abcde":
            with pytest.raises(QueueFull):
                put(store, owner, 60)
        before, size = waiting(store), store.client.dbsize()
        assert len(before) == 50
        with pytest.raises(QueueFull):
            store.submit(replace(new_job("one more", cache=False), owner="f"), NOW)
        assert (waiting(store), store.client.dbsize()) == (before, size)

    def test_a_refused_job_waits_for_its_own_keys_turns_alone(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=20)
        store.client.set(keys.drain_rate(store.settings.default_model), "0.5")

        def refused(owner: str) -> int:
            with pytest.raises(QueueFull) as caught:
                put(store, owner, 1)
            return caught.value.retry_after_seconds

        put(store, "a", 18)
        assert [refused("a") for _ in range(4)] == [2, 4, 6, 8]
        put(store, "b", 2)
        assert [refused("b") for _ in range(2)] == [6, 8]
        served(store, 15)
        put(store, "a", 13)
        assert refused("a") == 2


def test_a_full_server_refuses_a_keys_job_before_anything_is_written(
    client: redis.Redis, settings: WorkerSettings
) -> None:
    store = TimedStore(client, settings)
    put(store, "a", 3)
    served(store, 3)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisUnavailable):
            store.submit(replace(new_job(), owner="b"), NOW)
        assert client.exists(*TAGS) == len(TAGS)
    finally:
        client.config_set("maxmemory", 0)
