"""Submits that come while one is under way share the next round trip to Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from promptq.contract.errors import RedisUnavailable
from promptq.queue.records import Admission, NewJob, Submitted
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.queue.store import JobStore

PATIENCE_SECONDS = 0.05
"""How long a batch waits for the round trip before it. Then it is sent all the same, so that nobody waits for the
time-out of another request when Redis is slow or away."""


class SubmitBatcher:
    """One submit at a time goes to Redis; those that come meanwhile go together, when it is back.

    A lone submit is sent at once; many that come together share the cost of a round trip.

    Args:
        count: told of what became of jobs that went together, before they are answered.
    """

    def __init__(self, store: JobStore, count: Callable[[Sequence[Admission]], None]) -> None:
        self._store = store
        self._count = count
        self._entering = threading.Lock()
        self._sending = threading.Lock()
        self._next = _Batch()

    def submit(self, new: NewJob) -> Submitted:
        """Admit a job, as the store's `submit`."""
        batch, place = self._enter(new)
        if place:
            batch.sent.wait()
        else:
            self._lead(batch)
        return batch.outcome(place)

    def _enter(self, new: NewJob) -> tuple[_Batch, int]:
        with self._entering:
            if len(self._next.news) == JOBS_PER_SCRIPT:
                self._next = _Batch()
            self._next.news.append(new)
            return self._next, len(self._next.news) - 1

    def _lead(self, batch: _Batch) -> None:
        """Send the batch; its first request does so for all of them."""
        in_turn = self._sending.acquire(timeout=PATIENCE_SECONDS)
        try:
            time.sleep(0)  # lets requests that are ready join the batch
            with self._entering:
                if self._next is batch:
                    self._next = _Batch()
            batch.admissions = self._store.submit_many(batch.news)
            self._count(batch.admissions)
        except Exception as error:
            batch.error = error
        finally:
            if in_turn:
                self._sending.release()
            batch.sent.set()


class _Batch:
    """Jobs that are sent together, and the result of each."""

    def __init__(self) -> None:
        self.news: list[NewJob] = []
        self.sent = threading.Event()
        self.admissions: list[Admission] = []
        self.error: Exception = RedisUnavailable("the request that it was to be asked with was ended")

    def outcome(self, place: int) -> Submitted:
        """The result of the job at this place; raises the error if it was refused."""
        admission = self.admissions[place] if self.admissions else self.error
        if isinstance(admission, Exception):
            raise admission
        return admission
