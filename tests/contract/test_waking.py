"""Which workers are told of a job: one for each, of those that have room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from promptq.contract.keys import READY_SECONDS
from promptq.contract.queues import QueueName
from promptq.queue.records import Claim
from promptq.queue.waking import pass_on
from tests.fakes import MODEL, SETTINGS, TimedStore, keys, new_job, submit, success

DEFAULT = QueueName(MODEL, "default")


@pytest.fixture
def told(store: TimedStore) -> Iterator[Any]:
    """What was said since it was asked last, and to whom; empty: to all."""
    with store.client.pubsub() as subscription:
        subscription.subscribe(keys.wake_channel, *(keys.wake_channel_of(name) for name in "abc"))
        for _ in range(4):
            subscription.get_message(timeout=1)

        def told() -> list[tuple[str, str]]:
            messages: Any = iter(lambda: subscription.get_message(timeout=0.05), None)
            found = [(one["channel"].decode(), one["data"].decode()) for one in messages]
            return [(channel.removeprefix(keys.wake_channel).lstrip(":"), queue) for channel, queue in found]

        yield told


def ready(client: redis.Redis) -> set[bytes]:
    return set(client.smembers(keys.ready_workers("high")))


def test_one_of_the_ready_workers_is_told_of_one_job(store: TimedStore, told: Any) -> None:
    for name in "abc":
        assert store.claim(name, 4) == []
    submit(store, cache=False)
    ((worker, queue),) = told()
    assert queue == "default"
    assert ready(store.client) == {name.encode() for name in "abc" if name != worker}
    assert [claim.id for claim in store.claim(worker, 4)]
    assert ready(store.client) == {b"a", b"b", b"c"}


def test_as_many_are_told_as_there_are_jobs_and_all_where_too_few_are_ready(store: TimedStore, told: Any) -> None:
    for name in "abc":
        store.claim(name, 4)
    store.submit_many([new_job(f"{number}", cache=False) for number in range(2)])
    assert len(told()) == 2
    store.submit_many([new_job(f"more {number}", cache=False) for number in range(2)])
    assert sorted(told())[0] == ("", "default")
    assert len(store.claim("a", 9)) == 4


def test_nobody_gives_way_to_the_least_urgent_so_nobody_else_is_told(store: TimedStore, told: Any) -> None:
    submit(store, priority="low", cache=False)
    assert told() == []
    submit(store, priority="high", cache=False)
    assert told() == [("", "high")]


def test_a_worker_that_is_full_is_not_told(store: TimedStore, told: Any) -> None:
    store.claim("a", 1)
    submit(store, "1", cache=False)
    assert told() == [("a", "default")]
    (claim,) = store.claim("a", 1)
    assert ready(store.client) == set()
    store.finish_and_claim("a", [success(claim)], 1)
    assert ready(store.client) == {b"a"}
    assert 0 < store.client.ttl(keys.ready_workers("high")) <= READY_SECONDS


def test_one_that_nobody_hears_is_passed_over(store: TimedStore, told: Any) -> None:
    for name in ("dead", "gone", "a"):
        store.claim(name, 1)
    submit(store, cache=False)
    submit(store, "2", cache=False)
    assert ("a", "default") in told()
    assert ready(store.client) == set()


def test_one_that_has_no_room_any_more_passes_it_on(store: TimedStore, told: Any) -> None:
    for name in "ab":
        store.claim(name, 1)
    submit(store, cache=False)
    ((first, _),) = told()
    pass_on(store, DEFAULT)
    ((second, queue),) = told()
    assert {first, second} == {"a", "b"}
    assert queue == "default"
    pass_on(store, DEFAULT)
    assert told() == [("", "default")]


def test_a_busy_worker_leaves_a_suspect_to_another(store: TimedStore, told: Any) -> None:
    """It may not run it beside others; it is not told again of what comes behind it, and an idle one is."""
    job_id = submit(store, cache=False).job.id
    for _ in range(SETTINGS.max_attempts - 1):
        (claim,) = store.claim("dead", 1)
        assert store.take_back("dead").requeued == 1
    store.claim("a", 4, busy=True)
    assert ready(store.client) == set()
    store.client.sadd(keys.ready_workers("high"), "b")
    told()
    assert store.claim("a", 4, busy=True) == []
    assert told() == [("b", "high")]
    assert [found.id for found in store.claim("b", 4)] == [job_id]
    assert ready(store.client) == set()
    del claim


def test_models_have_workers_of_their_own(store: TimedStore, told: Any) -> None:
    store.claim("a", 1, model="other")
    assert ready(store.client) == set()
    assert store.client.smembers(keys.ready_workers("other:high")) == {b"a"}
    submit(store, cache=False)
    assert told() == [("", "default")]


def test_a_claim_above_a_priority_says_nothing_of_room(store: TimedStore) -> None:
    claims: list[Claim] = store.claim("a", 1, above="default")
    assert claims == []
    assert ready(store.client) == set()
