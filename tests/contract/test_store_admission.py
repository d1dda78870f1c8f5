"""Who gets in: repeats and conflicts, and what a full queue says. On fakeredis and on a real server alike."""

from __future__ import annotations

import pytest

from promptq.contract.errors import IdempotencyConflict, QueueFull
from tests.fakes import NOW, TimedStore, keys, new_job, submit, success, with_settings


class TestIdempotency:
    def test_the_same_key_and_body_give_the_same_job(self, store: TimedStore) -> None:
        first = store.submit(new_job(key="k", keep=100), NOW)
        again = store.submit(new_job(key="k", keep=100), NOW + 1)
        assert (again.outcome, again.job.id) == ("repeat", first.job.id)
        assert len(store.claim("w", 5, NOW)) == 1

    def test_the_same_key_with_another_body_conflicts(self, store: TimedStore) -> None:
        store.submit(new_job("a", key="k", keep=100), NOW)
        with pytest.raises(IdempotencyConflict):
            store.submit(new_job("b", key="k", keep=100), NOW)

    def test_a_chosen_id_is_as_good_as_a_key(self, store: TimedStore) -> None:
        store.submit(new_job(job_id="mine", keep=100), NOW)
        assert store.submit(new_job(job_id="mine", keep=100), NOW).outcome == "repeat"
        with pytest.raises(IdempotencyConflict):
            store.submit(new_job("other", job_id="mine", keep=100), NOW)

    def test_a_keyed_job_is_kept_as_long_as_its_key(self, store: TimedStore) -> None:
        job = store.submit(new_job(key="k", keep=90_000), NOW).job
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
        assert store.client.ttl(keys.job(job.id)) > 80_000


class TestBackpressure:
    def test_a_full_queue_refuses_before_anything_is_written(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=2)
        for _ in range(2):
            submit(store, cache=False)
        before = store.client.dbsize()
        with pytest.raises(QueueFull) as caught:
            submit(store, cache=False)
        assert caught.value.depth == 2
        assert store.client.dbsize() == before

    def test_retry_after_comes_from_the_drain_rate(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=1)
        submit(store, cache=False)
        store.client.set(keys.drain_rate(store.settings.default_model), "0.1")
        with pytest.raises(QueueFull) as caught:
            submit(store, cache=False)
        assert caught.value.retry_after_seconds == 10

    def test_each_refused_job_has_a_turn_of_its_own(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=4)
        store.client.set(keys.drain_rate(store.settings.default_model), "0.5")

        def refused() -> int:
            with pytest.raises(QueueFull) as caught:
                submit(store, cache=False)
            return caught.value.retry_after_seconds

        for _ in range(4):
            submit(store, cache=False)
        assert [refused() for _ in range(3)] == [2, 4, 6]
        store.claim("w", 3, NOW)
        for _ in range(3):
            submit(store, cache=False)
        assert refused() == 2

    def test_a_cache_hit_needs_no_room(self, store: TimedStore) -> None:
        submit(store)
        store.finish("w", [success(store.claim("w", 1, NOW)[0])], NOW)
        full = with_settings(store, max_queue_jobs=1)
        submit(full, cache=False)
        assert submit(full).outcome == "hit"

    def test_joined_jobs_count(self, store: TimedStore) -> None:
        store = with_settings(store, max_queue_jobs=2)
        assert [submit(store).outcome for _ in range(2)] == ["new", "join"]
        with pytest.raises(QueueFull):
            submit(store)
