"""Many jobs in one call, on fakeredis and on a real server alike."""

from __future__ import annotations

import pytest

from promptq.contract.errors import IdempotencyConflict, QueueFull
from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.store import Submitted
from tests.fakes import NOW, TimedStore, keys, new_job, submit, success, with_settings


@pytest.fixture
def store(store: TimedStore) -> TimedStore:
    return with_settings(store, max_queue_jobs=8)


def test_each_job_goes_the_way_it_would_have_gone_alone(store: TimedStore) -> None:
    submit(store, "cached")
    store.finish("w", [success(store.claim("w", 1, NOW)[0], "known")], NOW)
    store.submit(new_job("old", key="k", keep=99), NOW)
    news = [
        new_job("a"), new_job("cached"), new_job("a"),
        new_job("old", key="k", keep=99), new_job("else", key="k", keep=99),
        new_job("b", priority="high", ttl_seconds=5),
        new_job("c", job_id="own", keep=9), new_job("c", job_id="own", keep=9),
    ]  # fmt: skip
    done = store.submit_many(news, NOW)
    outcomes = [one.outcome if isinstance(one, Submitted) else type(one) for one in done]
    assert outcomes == ["new", "hit", "join", "repeat", IdempotencyConflict, "new", "new", "repeat"]
    assert [done[i].job.queue_position for i in (0, 5, 6)] == [1, 0, 2]
    assert done[7].job.id == "own"
    assert done[1].job.result.text == "known"
    for one in done:
        if isinstance(one, Submitted):
            assert store.get(one.job.id).status is one.job.status
            assert store.get(one.job.id).cache == one.job.cache
    totals = store.client.hgetall(keys.totals())
    assert int(totals[b"submitted"]) == 2 + 5
    assert store.reap(NOW + 6).expired == 1


def test_what_is_sent_again_after_a_lost_reply_is_recognised(store: TimedStore) -> None:
    news = [new_job("a", cache=False), new_job("b"), new_job("b")]
    assert [one.outcome for one in store.submit_many(news, NOW)] == ["new", "new", "join"]
    assert [one.outcome for one in store.submit_many([new_job("c"), *news], NOW)] == ["new", *["repeat"] * 3]
    assert store.client.llen(keys.queue("default")) == 3


def test_jobs_are_admitted_while_there_is_room_and_the_others_refused_in_turn(store: TimedStore) -> None:
    store.client.set(keys.drain_rate(store.settings.default_model), "1")
    done = store.submit_many([new_job(f"p{i}") for i in range(11)], NOW)
    assert [type(one) for one in done] == [Submitted] * 8 + [QueueFull] * 3
    assert [one.retry_after_seconds for one in done[8:]] == [1, 2, 3]
    assert store.client.llen(keys.queue("default")) == 8
    store.client.set(keys.drain_rate(store.settings.default_model), "1")
    with pytest.raises(QueueFull) as caught:
        submit(store, "late")
    assert caught.value.retry_after_seconds == 4


def test_jobs_are_read_together_as_they_would_be_alone(store: TimedStore) -> None:
    ended = submit(store, "a").job
    store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
    ids = [ended.id, "nope", *(submit(store, p, cache=False).job.id for p in "bcd")]
    store.claim("w", 1, NOW)
    seen = store.get_many(ids)
    assert seen == [store.get(ended.id), None, *(store.get(job_id) for job_id in ids[2:])]
    assert [job.status for job in seen if job] == [Status.SUCCEEDED, Status.RUNNING, Status.QUEUED, Status.QUEUED]
    assert [job.queue_position for job in seen if job] == [None, None, 0, 1]
    assert store.get_many([]) == []


def test_a_read_carries_no_prompt(store: TimedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(store, "secret " * 1000).job
    replies = []
    run = store.scripts.run
    monkeypatch.setattr(store.scripts, "run", lambda *arguments: replies.append(run(*arguments)) or replies[-1])
    store.get(job.id)
    assert len(repr(replies)) < 1000


def test_ends_are_announced_in_one_message(client, settings: WorkerSettings) -> None:
    store = TimedStore(client, settings)
    ids = [submit(store, str(i)).job.id for i in range(3)]
    with client.pubsub() as listener:
        listener.subscribe(keys.done_channel)
        assert listener.get_message(timeout=1)["type"] == "subscribe"
        store.finish("w", [success(claim) for claim in store.claim("w", 3, NOW)], NOW)
        assert listener.get_message(timeout=1)["data"].decode().split() == ids
        assert listener.get_message(timeout=0.1) is None


def test_more_joined_jobs_than_lua_unpacks_end_with_their_leader(client, settings: WorkerSettings) -> None:
    store = TimedStore(client, settings.model_copy(update={"max_queue_jobs": 20_000}))
    for _ in range(90):
        store.submit_many([new_job("same") for _ in range(100)], NOW)
    (claim,) = store.claim("w", 5, NOW)
    assert store.finish("w", [success(claim)], NOW) == [True]
    assert client.zcard(keys.finished("default")) == 9000
    assert client.zcard(keys.deferred("default")) == 0


def test_a_turn_ends_and_claims_in_one_go_even_when_scripts_are_forgotten(store: TimedStore) -> None:
    for number in range(5):
        submit(store, str(number))
    claims = store.claim("w", 2, NOW)
    stored, more = store.finish_and_claim("w", [success(claim) for claim in claims], 2, NOW)
    assert (stored, len(more)) == ([True, True], 2)
    assert store.finish_and_claim("w", [success(claims[0])], 0, NOW) == ([True], [])
    store.client.script_flush()
    stored, last = store.finish_and_claim("w", [success(claim) for claim in more], 2, NOW)
    assert (stored, len(last)) == ([True, True], 1)
    assert store.finish_and_claim("w", [], 2, NOW) == ([], [])
    assert store.claim("w", 0, NOW) == []
    assert store.client.zcard(keys.finished("default")) == 4
    assert len({claim.execution for claim in [*claims, *more, *last]}) == 5


def test_a_turn_is_one_round_trip(client, settings: WorkerSettings) -> None:
    store = TimedStore(client, settings)
    for number in range(4):
        submit(store, str(number))
    claims = store.claim("w", 2, NOW)
    store.finish("w", [success(claims[0])], NOW)
    before = client.info("stats")["total_reads_processed"]
    store.finish_and_claim("w", [success(claims[1])], 2, NOW)
    assert client.info("stats")["total_reads_processed"] - before == 2  # one of them the second INFO
