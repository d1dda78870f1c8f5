"""Usage is counted once, where jobs end, on fakeredis and on a real server alike."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from promptq.contract.job import Result, Status
from promptq.queue.records import Claim, Ending
from promptq.queue.usage import read
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, new_job, submit, success, with_settings

DAY = datetime.fromtimestamp(NOW, UTC).date()
LATER = NOW + 10_000
RAN = {"succeeded": 1, "prompt_tokens": 1, "completion_tokens": 2}


def used(store: TimedStore, owner: str = "", days: int = 1) -> Counter[str]:
    """Counts over all models and so many days."""
    total: Counter[str] = Counter()
    for usage in read(store, owner, [DAY + timedelta(days=n) for n in range(days)]):
        total.update(usage.counts)
    return total


def run(store: TimedStore, now: float = NOW) -> bool:
    return store.finish("w", [success(store.claim("w", 1, now)[0])], now)[0]


class TestEnds:
    def test_a_run_counts_its_tokens_by_model(self, store: TimedStore) -> None:
        submit(store)
        result = Result("text", "stop", "m", prompt_tokens=40, completion_tokens=9, cached_tokens=32)
        store.finish("w", [Ending(store.claim("w", 1, NOW)[0], Status.SUCCEEDED, result)], NOW)
        (usage,) = read(store, "", [DAY])
        assert (usage.day, usage.model) == (DAY, store.settings.default_model)
        assert usage.counts == {"succeeded": 1, "prompt_tokens": 40, "cached_tokens": 32, "completion_tokens": 9}

    def test_another_models_jobs_are_its_own(self, store: TimedStore) -> None:
        other = new_job(job_id="a", ttl_seconds=1)
        store.submit(replace(other, model="org/o'ther:7b"), NOW)
        store.cancel("a", NOW)
        assert [(usage.model, usage.counts) for usage in read(store, "", [DAY])] == [
            ("org/o'ther:7b", {"cancelled": 1})
        ]

    def test_a_hit_is_a_job_without_tokens(self, store: TimedStore) -> None:
        submit(store)
        run(store)
        assert submit(store).outcome == "hit"
        assert used(store) == RAN | {"succeeded": 2, "cache_hits": 1}

    def test_a_hit_is_its_owners(self, store: TimedStore) -> None:
        for _ in range(2):
            store.submit(replace(new_job(), owner="ann", model=store.settings.default_model), NOW)
            if not used(store, "ann"):
                run(store)
        assert used(store, "ann") == RAN | {"succeeded": 2, "cache_hits": 1}
        assert used(store) == used(store, "bob") == {}

    def test_a_join_is_a_job_without_tokens(self, store: TimedStore) -> None:
        assert [submit(store).outcome for _ in range(3)] == ["new", "join", "join"]
        run(store)
        assert used(store) == RAN | {"succeeded": 3, "joins": 2}

    def test_a_partial_text_counts(self, store: TimedStore) -> None:
        submit(store)
        store.finish("w", [cancelled(store.claim("w", 1, NOW)[0])], NOW)
        assert used(store) == {"cancelled": 1, "prompt_tokens": 1, "completion_tokens": 1}

    def test_every_life_that_ends_counts(self, store: TimedStore) -> None:
        job = submit(store).job
        store.finish("w", [failure(store.claim("w", 1, NOW)[0])], NOW)
        store.retry(job.id, NOW)
        run(store)
        assert used(store) == RAN | {"failed": 1}

    def test_what_no_worker_ends_counts(self, store: TimedStore) -> None:
        store = with_settings(store, max_attempts=1)
        submit(store, "lost")
        store.claim("w", 1, NOW)
        store.cancel(submit(store, "cancelled").job.id, NOW)
        submit(store, "expired", ttl_seconds=1)
        store.reap(NOW + 5000)
        assert used(store) == {"failed": 1, "cancelled": 1, "expired": 1}

    def test_a_worker_that_is_fenced_off_counts_nothing(self, store: TimedStore) -> None:
        submit(store)
        (old,) = store.claim("w1", 1, NOW)
        store.reap(LATER)
        (new,) = store.claim("w2", 1, LATER)
        assert store.finish("w1", [success(old)], LATER) == [False]
        assert used(store) == {}
        assert store.finish("w2", [success(new)], LATER) == [True]
        assert used(store) == RAN

    def test_a_repeat_counts_once(self, store: TimedStore) -> None:
        submit(store)
        ending = success(store.claim("w", 1, NOW)[0])
        assert [store.finish("w", [ending, ending], NOW) for _ in range(2)] == [[True, True]] * 2
        assert used(store) == RAN

    def test_a_key_that_is_no_hash_costs_the_counts_only(self, store: TimedStore) -> None:
        store.client.set(keys.usage(f"{DAY}:"), "x")
        job = submit(store).job
        assert run(store)
        assert store.get(job.id).status is Status.SUCCEEDED


def test_days_are_those_of_the_end_and_live_as_long_as_the_setting_says(store: TimedStore) -> None:
    store = with_settings(store, usage_days=7)
    submit(store, "a")
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp() + 86_400
    run(store, midnight - 0.001)
    submit(store, "b")
    run(store, midnight)
    assert [usage.day for usage in read(store, "", [DAY, DAY + timedelta(days=1)])] == [DAY, DAY + timedelta(days=1)]
    assert 0 <= 7 * 86_400 - store.client.ttl(keys.usage(f"{DAY}:")) < 60


@pytest.mark.parametrize("seed", range(12))
def test_the_sums_are_a_plain_models(store: TimedStore, seed: int) -> None:
    """Whatever the order of submits, ends, repeats, cancels and lost leases."""
    store = with_settings(store, max_attempts=1000)
    draw, now = random.Random(seed), NOW
    expected: dict[str, Counter[str]] = {owner: Counter() for owner in ("", "ann", "bob")}
    owners: dict[str, str] = {}
    claims: list[Claim] = []
    for step in range(80):
        now += draw.choice([0, 1, 4000])
        store.reap(now)  # no attempt is the last: leases that ran out are back in the queue
        act = draw.choice(["submit", "submit", "claim", "finish", "finish", "cancel"])
        if act == "submit":
            owner = draw.choice(list(expected))
            new = replace(new_job(f"p{step}", cache=False), owner=owner, model=store.settings.default_model)
            owners[store.submit(new, now).job.id] = owner
        elif act == "claim":
            claims += store.claim("w", draw.randint(1, 3), now)
        elif act == "finish" and claims:
            _finish(store, draw, draw.sample(claims, min(3, len(claims))), expected, owners, now)
        elif act == "cancel" and owners:
            _cancel(store, draw.choice(list(owners)), expected, owners, now)
    assert {owner: used(store, owner, days=10) for owner in expected} == expected


def _finish(
    store: TimedStore, draw: random.Random, claims: list[Claim], expected: dict[str, Counter[str]],
    owners: dict[str, str], now: float,
) -> None:  # fmt: skip
    before = [store.get(claim.id).status.is_terminal for claim in claims]
    endings = [
        Ending(claim, draw.choice([Status.SUCCEEDED, Status.CANCELLED]), Result("t", "stop", "m", n, n + 1))
        for n, claim in enumerate(claims, 5)
    ]
    for ending, stored, was_over in zip(endings, store.finish("w", endings, now), before, strict=True):
        if stored and not was_over:
            tokens = {
                "prompt_tokens": ending.result.prompt_tokens,
                "completion_tokens": ending.result.completion_tokens,
            }
            expected[owners[ending.claim.id]].update({str(ending.state): 1} | tokens)


def _cancel(
    store: TimedStore, job_id: str, expected: dict[str, Counter[str]], owners: dict[str, str], now: float
) -> None:
    status = store.get(job_id).status
    if status is Status.QUEUED and store.cancel(job_id, now) is Status.CANCELLED:
        expected[owners[job_id]].update({"cancelled": 1})
