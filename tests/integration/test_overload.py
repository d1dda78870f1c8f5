"""Far more jobs than one worker can do: the queue stays bounded, what is admitted ends in turn, and `low` moves."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from promptq.contract.errors import QueueFull
from promptq.contract.job import Job, Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from tests.fakes import TimedStore, keys, submit
from tests.integration.scalers import scaler
from tests.processes import wait_until

BOUND = 20
SLOTS = 4
# A job is 5 words at 20 a second: one worker ends 16 a second. Four clients that never rest offer far more.
SCALER = {"slots": SLOTS, "echo_tokens_per_second": 20, "max_workers": 1, "lease_seconds": 15}


class Crowd:
    """Clients that submit `high` jobs without a pause, until told to stop."""

    def __init__(self, store: TimedStore) -> None:
        self.admitted: list[Job] = []
        self.refused: list[int] = []
        self.deepest = 0
        self._store = store
        self._closing = threading.Event()

    def run(self) -> None:
        while not self._closing.is_set():
            try:
                done = submit(self._store, "one two three four five", now=time.time(), priority="high", cache=False)
                self.admitted.append(done.job)
            except QueueFull as error:
                self.refused.append(error.retry_after_seconds)
                self.deepest = max(self.deepest, error.depth)
                time.sleep(0.005)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(self.run) for _ in range(4)]
            try:
                yield
            finally:
                self._closing.set()
        assert [run.result() for run in runs] == [None] * 4


@pytest.fixture
def narrow(store: TimedStore, settings: WorkerSettings) -> TimedStore:
    return TimedStore(store.client, settings.model_copy(update={"max_queue_jobs": BOUND}))


def test_the_queue_is_bounded_and_low_moves(server: EmbeddedServer, narrow: TimedStore) -> None:
    crowd = Crowd(narrow)
    with scaler(server, ageing_seconds=1, **SCALER) as running:
        running.has(1)
        lows = [submit(narrow, "one two three", now=time.time(), priority="low", cache=False).job for _ in range(5)]
        with crowd.at_work():
            overtaking = [wait_until(lambda job=job: passed_by(narrow, job), 60, "low") for job in lows]
            wait_until(lambda: len(crowd.refused) > 10 * len(crowd.admitted), 60, "ten times the capacity")
            wait_until(lambda: Observer(narrow.client, narrow.settings).snapshot().queued >= BOUND - SLOTS, 30)
        wait_until(lambda: all(narrow.get(job.id).status.is_terminal for job in crowd.admitted), 60, "all the ends")
    print(f"{len(crowd.admitted)} admitted, {len(crowd.refused)} refused; lows ended beside {overtaking} waiting highs")
    assert BOUND <= crowd.deepest <= BOUND + SLOTS, "rows that give way are put back, full or not"
    assert {narrow.get(job.id).status for job in (*lows, *crowd.admitted)} == {Status.SUCCEEDED}
    assert min(overtaking) > 0
    _expect_waits_that_fit_the_queue(narrow, crowd)
    assert 1 <= min(crowd.refused) <= max(crowd.refused) <= 300


def passed_by(store: TimedStore, job: Job) -> int:
    """Once the job has ended: how many `high` jobs wait beside it."""
    return store.client.llen(keys.queue("high")) if store.get(job.id).status.is_terminal else 0


def _expect_waits_that_fit_the_queue(store: TimedStore, crowd: Crowd) -> None:
    """Counted in jobs, so whatever the machine's pace: between a submit and its start no more begin than can wait."""
    ended = [store.get(job.id) for job in crowd.admitted]
    starts = sorted(job.started_at or 0 for job in ended)
    ahead = [bisect_left(starts, job.started_at or 0) - bisect_right(starts, job.created_at) for job in ended]
    print(f"at most {max(ahead)} jobs began while one waited")
    assert BOUND / 2 < max(ahead) <= BOUND + SLOTS
