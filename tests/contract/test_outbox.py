"""Every end of a job of which somebody asked to be told is in the outbox once. On fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from promptq.contract.errors import EventsBehind
from promptq.contract.job import Status
from promptq.queue.losses import Loss, redeliver
from promptq.queue.outbox import read
from promptq.queue.reconcile import reconcile
from promptq.queue.records import Submitted
from tests.fakes import NOW, TimedStore, failure, keys, new_job, success, with_settings


@pytest.fixture(autouse=True)
def owners(store: TimedStore) -> None:
    """Ann has an endpoint."""
    store.client.sadd(keys.webhook_owners(), "ann")


def put(store: TimedStore, job_id: str, prompt: str = "", webhook: str = "", **fields: object) -> str:
    new = replace(new_job(prompt or job_id, job_id=job_id, **fields), owner="ann", webhook=webhook)
    store.submit(new, NOW)
    return job_id


def told(store: TimedStore) -> list[tuple[str, Status]]:
    return [(end.id, Status(end.state)) for end in read(store, 100)]


def claim(store: TimedStore, times: int = 1) -> None:
    """So many times claimed, the last but one of them lost."""
    for round_ in range(times):
        assert store.claim("w", 5, NOW + 100 * round_)
        if round_ + 1 < times:
            store.reap(NOW + 100 * round_ + 50)


def succeed(store: TimedStore) -> None:
    store.finish("w", [success(one) for one in store.claim("w", 5, NOW)], NOW)


def fail(store: TimedStore) -> None:
    store.finish("w", [failure(one) for one in store.claim("w", 5, NOW)], NOW)


def cancel_waiting(store: TimedStore) -> None:
    store.cancel("job", NOW)


def cancel_running_and_release(store: TimedStore) -> None:
    claims = store.claim("w", 1, NOW)
    store.cancel("job", NOW)
    store.release(claims, NOW)


def cancel_running_and_lose(store: TimedStore) -> None:
    store.claim("w", 1, NOW)
    store.cancel("job", NOW)
    store.take_back("w", NOW)


def cancel_running_and_evict(store: TimedStore) -> None:
    store.claim("w", 1, NOW)
    store.cancel("job", NOW)
    store.client.delete(keys.wip("default"))
    reconcile(store, ["job"])


def expire_by_the_reaper(store: TimedStore) -> None:
    store.reap(NOW + 6)


def expire_at_the_claim(store: TimedStore) -> None:
    assert store.claim("w", 1, NOW + 6) == []


def lose_by_the_lease(store: TimedStore) -> None:
    claim(store, store.settings.max_attempts)
    store.reap(NOW + 1000)


def lose_by_death(store: TimedStore) -> None:
    claim(store, store.settings.max_attempts)
    store.take_back("w", NOW + 1000)


def lose_upstream(store: TimedStore) -> None:
    store = with_settings(store, max_attempts=1)
    (one,) = store.claim("w", 1, NOW)
    redeliver(store, [Loss(one, "it broke off")])


ENDS: list[tuple[Callable[[TimedStore], None], Status]] = [
    (succeed, Status.SUCCEEDED), (fail, Status.FAILED), (cancel_waiting, Status.CANCELLED),
    (cancel_running_and_release, Status.CANCELLED), (cancel_running_and_lose, Status.CANCELLED),
    (cancel_running_and_evict, Status.CANCELLED), (expire_by_the_reaper, Status.EXPIRED),
    (expire_at_the_claim, Status.EXPIRED), (lose_by_the_lease, Status.FAILED), (lose_by_death, Status.FAILED),
    (lose_upstream, Status.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("end", "state"), ENDS, ids=[end.__name__ for end, _ in ENDS])
def test_each_way_to_end_is_told_once(store: TimedStore, end: Callable[[TimedStore], None], state: Status) -> None:
    put(store, "job", ttl_seconds=5)
    assert told(store) == []
    end(store)
    assert store.get("job").status is state
    assert told(store) == [("job", state)]


@pytest.mark.parametrize("end", [end for end, _ in ENDS], ids=[end.__name__ for end, _ in ENDS])
def test_each_way_to_end_is_told_to_the_jobs_own_webhook(store: TimedStore, end: Callable[[TimedStore], None]) -> None:
    store.client.delete(keys.webhook_owners())
    put(store, "job", ttl_seconds=5, webhook="{}")
    end(store)
    assert [(one.id, one.webhook) for one in read(store, 100)] == [("job", "{}")]


def test_what_joined_and_what_was_cached_is_told_too(store: TimedStore) -> None:
    put(store, "lead", "same")
    put(store, "join", "same")
    succeed(store)
    put(store, "hit", "same")
    assert told(store) == [(job_id, Status.SUCCEEDED) for job_id in ("lead", "join", "hit")]


def test_a_retried_job_ends_anew(store: TimedStore) -> None:
    put(store, "job")
    fail(store)
    store.retry("job", NOW)
    succeed(store)
    assert told(store) == [("job", Status.FAILED), ("job", Status.SUCCEEDED)]
    first, second = read(store, 100)
    assert first.event_id != second.event_id


def test_a_key_with_endpoints_is_told_of_all_its_jobs_and_others_of_none(store: TimedStore) -> None:
    for owner in ("ann", "bob", ""):
        store.submit(replace(new_job(owner or "nobody", cache=False), owner=owner), NOW)
    succeed(store)
    (end,) = read(store, 100)
    assert (end.kind, end.owner, end.state) == ("job", "ann", Status.SUCCEEDED)
    assert end.at > 0


def test_nobody_asked_and_nothing_is_written(store: TimedStore) -> None:
    store.client.delete(keys.webhook_owners())
    put(store, "job")
    succeed(store)
    assert store.client.exists(keys.outbox()) == 0


def test_a_response_is_told_as_one_and_a_line_of_a_batch_is_the_batchs(store: TimedStore) -> None:
    store.submit(replace(new_job("a", job_id="asked"), owner="ann", response="{}"), NOW)
    put(store, f"batch_{'0a' * 16}-0-7-0")
    put(store, "batch_of-mine")
    succeed(store)
    assert [(end.kind, end.id) for end in read(store, 100)] == [("response", "asked"), ("job", "batch_of-mine")]


def test_an_outbox_of_another_type_keeps_no_job_from_its_end(store: TimedStore) -> None:
    store.client.set(keys.outbox(), "what somebody else wrote")
    put(store, "job")
    succeed(store)
    assert store.get("job").status is Status.SUCCEEDED


def test_a_job_with_a_webhook_of_its_own_is_told_of_whoevers_it_is(store: TimedStore) -> None:
    for owner, webhook in (("bob", "{}"), ("", "{}"), ("bob", "")):
        store.submit(replace(new_job("same", ttl_seconds=5), owner=owner, webhook=webhook), NOW)
    assert store.submit(replace(new_job("same"), owner="bob", webhook="{1}"), NOW).outcome == "join"
    succeed(store)
    assert sorted((end.owner, end.webhook) for end in read(store, 100)) == [("", "{}"), ("bob", "{1}"), ("bob", "{}")]


def test_a_full_outbox_refuses_what_would_be_told_and_nothing_else(store: TimedStore) -> None:
    bounded = with_settings(store, max_outbox_events=1)
    put(store, "job")
    fail(store)
    refused = [replace(new_job("a", cache=False), owner="ann"), replace(new_job("b", cache=False), webhook="{}")]
    taken = [replace(new_job("c", cache=False), owner="bob"), new_job("d", cache=False)]
    lines = [replace(new_job("e", job_id=f"batch_{'0a' * 16}-0-7-0", cache=False), owner="ann")]
    outcomes = bounded.submit_many([*refused, *taken, *lines], NOW)
    assert [type(one) for one in outcomes] == [EventsBehind] * 2 + [Submitted] * 3
    with pytest.raises(EventsBehind):
        bounded.retry("job", NOW)
    store.client.delete(keys.outbox())
    bounded.retry("job", NOW)
