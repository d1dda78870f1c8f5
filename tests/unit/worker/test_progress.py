"""What the worker keeps of its rows, when, and what of a repeat: on fakeredis, whose answers can be lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Event, FinishReason, RowEnd
from gpu_worker.progress import ProgressKeeper
from promptq.contract.errors import RedisUnavailable
from promptq.queue.records import Claim
from promptq.queue.scripts import Call
from tests.fakes import IDENTITY, TimedStore, keys, submit
from tests.processes import wait_until

INTERVAL = 2.0
END = RowEnd(FinishReason.STOP, "text", 1, 1, 1)


class Bench:
    """A keeper whose clock the test moves, and one claimed job."""

    def __init__(self, store: TimedStore, interval: float = INTERVAL) -> None:
        self.store, self.now = store, 100.0
        self.keeper = ProgressKeeper(store, IDENTITY, interval, lambda: self.now)
        self.job_id = submit(store, cache=False).job.id
        self.run = Run(self.claim(), 0.0)

    def claim(self) -> Claim:
        return self.store.claim("w", 1, resumes=IDENTITY)[0]

    def says(self, text: str, *ids: int) -> None:
        self.keeper.took(self.run, Event(self.job_id, text, ids))
        self.run.generated += len(ids)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.keeper._send(self.keeper._due(self.now))

    def kept(self) -> list[tuple[str, str, str]]:
        entries = self.store.client.xrange(keys.progress(self.job_id))
        return [(entry.decode(), row[b"tokens"].decode(), row[b"text"].decode()) for entry, row in entries]


@pytest.fixture
def it(fake_store: TimedStore) -> Bench:
    return Bench(fake_store)


def test_tokens_are_kept_every_so_often_and_not_before(it: Bench) -> None:
    it.says("a", 1)
    it.after(INTERVAL / 2)
    assert it.kept() == []
    it.says("", 2)
    it.after(INTERVAL / 2)
    assert it.kept() == [("1-2", "1 2", "a")]
    it.after(INTERVAL)
    it.says("bc", 3)
    it.after(INTERVAL)
    assert it.kept() == [("1-2", "1 2", "a"), ("1-3", "3", "bc")]


@pytest.mark.parametrize("interval", [0.0, INTERVAL])
def test_after_a_time_without_messages_a_row_is_kept_at_once_and_then_as_before(
    fake_store: TimedStore, interval: float
) -> None:
    """Its reader's word may have been missed; the reply to what is kept says whether there is one."""
    it = Bench(fake_store, interval)
    it.says("a", 1)
    it.after(0.0)
    assert it.kept() == []
    it.keeper.look_again([it.job_id])
    it.after(0.0)
    it.says("b", 2)
    it.after(0.1)
    assert it.kept() == [("1-1", "1", "a")]


@pytest.mark.parametrize("interval", [0.0, INTERVAL])
def test_so_is_the_first_of_a_row_that_was_claimed_before_and_begins_now(
    fake_store: TimedStore, interval: float
) -> None:
    it = Bench(fake_store, interval)
    it.keeper.look_again([it.job_id])
    it.says("a", 1)
    it.store.client.hset(keys.job(it.job_id), "watched", 1)
    it.after(0.0)
    it.says("b", 2)
    it.after(0.03)
    assert it.kept() == [("1-1", "1", "a"), ("1-2", "2", "b")]


def test_a_drain_does_not_wait_for_the_time(it: Bench) -> None:
    it.says("a", 1)
    it.keeper.keep()
    it.keeper.keep()
    assert it.kept() == [("1-1", "1", "a")]


def test_of_an_ended_or_dropped_row_nothing_more_is_kept(it: Bench) -> None:
    it.says("a", 1)
    it.keeper.took(it.run, Event(it.job_id, "b", (2,), END))
    it.keeper.keep()
    it.says("a", 1)
    it.keeper.dropped(it.run)
    it.keeper.keep()
    assert it.kept() == []


def test_a_row_that_went_on_counts_from_where_it_began(it: Bench) -> None:
    it.says("ab", 1, 2)
    it.keeper.keep()
    it.keeper.dropped(it.run)
    it.store.release([it.run.claim])
    it.run = Run(it.claim(), 0.0, 2)
    it.says("c", 3)
    it.keeper.keep()
    assert it.kept() == [("1-2", "1 2", "ab"), ("1-3", "3", "c")]


@pytest.mark.parametrize("is_written", [True, False])
def test_after_an_answer_that_was_lost_everything_is_kept_once(
    it: Bench, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    run = it.store.scripts.run

    def lose(name: str, arguments: Sequence[Call]) -> None:
        if is_written:
            run(name, arguments)
        raise RedisUnavailable("the answer is lost")

    it.says("a", 1)
    with monkeypatch.context() as patch, suppress(RedisUnavailable):
        patch.setattr(it.store.scripts, "run", lose)
        it.keeper.keep()
    it.says("b", 2)
    it.keeper.keep()
    it.keeper.keep()
    assert it.kept() == [("1-1", "1", "a"), ("1-2", "2", "b")]


@pytest.mark.parametrize("sent_before", [True, False])
def test_a_row_that_gets_its_job_back_under_another_claim_goes_on(it: Bench, sent_before: bool) -> None:
    it.says("a", 1)
    it.keeper.keep()
    it.says("b", 2)
    it.store.take_back("w")
    if sent_before:
        it.keeper.keep()  # refused: the claim is lost
    it.run.claim = it.claim()
    it.says("c", 3)
    it.keeper.keep()
    it.keeper.keep()
    assert "".join(text for _, _, text in it.kept()) == "abc"
    assert [token for _, tokens, _ in it.kept() for token in tokens.split()] == ["1", "2", "3"]


def test_where_another_worker_went_further_meanwhile_nothing_is_mixed(it: Bench) -> None:
    it.says("a", 1)
    it.keeper.keep()
    it.says("b", 2)
    it.store.take_back("w")
    other = ProgressKeeper(it.store, IDENTITY, INTERVAL, lambda: it.now)
    run = Run(it.claim(), 0.0, 1)
    other.took(run, Event(it.job_id, "bcd", (2, 3, 4)))
    other.keep()
    it.store.take_back("w")
    before = it.kept()
    it.run.claim = it.claim()
    it.says("c", 3)
    it.keeper.keep()
    assert it.kept() == before


def test_what_was_sent_and_refused_is_not_sent_into_another_worker_s_entries(it: Bench) -> None:
    it.says("a", 1)
    it.keeper.keep()
    it.says("bcd", 2, 3, 4)
    it.store.take_back("w")
    it.keeper.keep()  # refused: the claim is lost
    other = ProgressKeeper(it.store, IDENTITY, INTERVAL, lambda: it.now)
    other.took(Run(it.claim(), 0.0, 1), Event(it.job_id, "b", (2,)))
    other.keep()
    it.store.take_back("w")
    before = it.kept()
    it.run.claim = it.claim()
    it.says("e", 5)
    it.keeper.keep()
    assert it.kept() == before


def test_the_thread_keeps_what_is_due_and_goes_on_after_a_failure(it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = ProgressKeeper(it.store, IDENTITY, 0.04)
    run, failures = it.store.scripts.run, iter([RedisUnavailable("away"), ValueError("odd")])

    def fail_twice(name: str, arguments: Sequence[Call]) -> object:
        if error := next(failures, None):
            raise error
        return run(name, arguments)

    monkeypatch.setattr(it.store.scripts, "run", fail_twice)
    keeper.start()
    keeper.took(it.run, Event(it.job_id, "a", (1,)))
    wait_until(it.kept, 10)
    keeper.close()
    assert it.kept() == [("1-1", "1", "a")]
