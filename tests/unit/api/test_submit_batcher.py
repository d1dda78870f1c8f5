"""Submits that come together: one call of the store for all of them, and to each its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from api.waiting.submit_batcher import SubmitBatcher
from promptq.contract.errors import IdempotencyConflict, RedisUnavailable
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.queue.store import NewJob, Submitted
from tests.fakes import TimedStore, new_job
from tests.processes import wait_until


@pytest.fixture
def batcher(store: TimedStore) -> SubmitBatcher:
    return SubmitBatcher(store, lambda _: None)


@contextmanager
def held_up(store: TimedStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[int], Callable[[], None]]]:
    """The first call of the store takes until it is let go; gives the calls' sizes, and what lets it go."""
    real, sizes, go = store.submit_many, [], threading.Event()

    def submit_many(news: Sequence[NewJob]) -> object:
        sizes.append(len(news))
        if len(sizes) == 1:
            go.wait(10)
        return real(news)

    monkeypatch.setattr(store, "submit_many", submit_many)
    try:
        yield sizes, go.set
    finally:
        go.set()


def together(
    pool: ThreadPoolExecutor, batcher: SubmitBatcher, sizes: list[int], news: Sequence[NewJob]
) -> list[Future[Submitted]]:
    """The first one on its way, and then the others, all of them there."""
    first = pool.submit(batcher.submit, news[0])
    wait_until(lambda: sizes == [1], what="the first")
    others = [pool.submit(batcher.submit, new) for new in news[1:]]
    return [first, *others]


def test_those_that_come_while_one_is_under_way_go_together(
    batcher: SubmitBatcher, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.waiting.submit_batcher.PATIENCE_SECONDS", 10)
    news = [new_job(f"p{i}", cache=False) for i in range(8)] + [new_job("else", job_id="own", keep=9)]
    store.submit(new_job("mine", job_id="own", keep=9))
    with held_up(store, monkeypatch) as (sizes, go), ThreadPoolExecutor(16) as pool:
        done = together(pool, batcher, sizes, news)
        wait_until(lambda: len(batcher._next.news) == 8, what="the others")
        go()
        assert [one.result().job.id for one in done[:8]] == [new.id for new in news[:8]]
        with pytest.raises(IdempotencyConflict):
            done[8].result()
    assert sizes == [1, 8]


def test_no_script_gets_more_than_it_may(
    batcher: SubmitBatcher, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.waiting.submit_batcher.PATIENCE_SECONDS", 10)
    news = [new_job(f"p{i}", cache=False) for i in range(JOBS_PER_SCRIPT + 3)]
    with held_up(store, monkeypatch) as (sizes, go), ThreadPoolExecutor(128) as pool:
        done = together(pool, batcher, sizes, news)
        wait_until(lambda: len(batcher._next.news) == 2, what="the others")
        go()
        assert {one.result().outcome for one in done} == {"new"}
    assert sorted(sizes) == [1, 2, JOBS_PER_SCRIPT]


def test_nobody_waits_behind_anothers_time_out(
    batcher: SubmitBatcher, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_up(store, monkeypatch) as (sizes, go), ThreadPoolExecutor(2) as pool:
        first, second = together(pool, batcher, sizes, [new_job("a"), new_job("b")])
        assert second.result(5).outcome == "new"
        assert not first.done()
        go()
        assert first.result(5).outcome == "new"


def test_all_are_told_that_redis_is_away_and_the_next_one_tries_again(
    batcher: SubmitBatcher, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.submit_many
    monkeypatch.setattr("api.waiting.submit_batcher.PATIENCE_SECONDS", 10)
    with held_up(store, monkeypatch) as (sizes, go), ThreadPoolExecutor(4) as pool:
        done = together(pool, batcher, sizes, [new_job(name) for name in "abc"])
        wait_until(lambda: len(batcher._next.news) == 2, what="the others")

        def away(*_: object) -> None:
            raise RedisUnavailable("gone")

        monkeypatch.setattr(store, "submit_many", away)
        go()
        assert done[0].result().outcome == "new"
        for one in done[1:]:
            with pytest.raises(RedisUnavailable, match="gone"):
                one.result()
    monkeypatch.setattr(store, "submit_many", real)
    assert batcher.submit(new_job("d")).outcome == "new"
