"""Everybody in this process who waits for a job's end, woken by one subscription."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from api.waiting.subscription import Hearer, Subscription
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job

log = logging.getLogger(__name__)

LOOK_SECONDS = 2
"""How often a waiter looks whether its client is still there."""
READERS = 16
"""Of a thousand waiters woken together, so many read at once: more would only run into Redis time-outs."""
REREAD_SECONDS = (2.0, 4.0)
"""Between two looks at all that is waited for, by chance, so that processes do not look all at once."""
# Of its own: whoever seeds the shared one, as tests do, is not to find that a thread draws from it.
_chance = random.Random()


def seconds_to_reread() -> float:
    """Until the next look at all that is waited for."""
    return _chance.uniform(*REREAD_SECONDS)


class Waiters:
    """Waits hold no Redis connection: one subscription tells which job has ended.

    Messages may be lost while the subscription is away, so both its loss and its return wake everybody
    to read again; while Redis is down that read fails, and the wait with it. And nobody's answer hangs on a message:
    every few seconds one round trip asks for all of them whose job has ended.

    Args:
        done_channel: carries the ids of jobs that have ended.
        find_ended: which of these jobs have ended, or are there no more.
    """

    def __init__(
        self, subscription: Subscription, done_channel: str, find_ended: Callable[[Sequence[str]], Iterable[str]]
    ) -> None:
        subscription.add(Hearer([done_channel], self.wake, self.wake_all))
        self._subscription = subscription
        self._find_ended = find_ended
        self._started = False
        self._lock = threading.Lock()
        self._events: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._drained = threading.Event()
        self._turns = threading.Semaphore(READERS)

    def wait_for(
        self,
        job_id: str,
        seconds: float,
        read: Callable[[str], Job],
        has_left: Callable[[], bool] = lambda: False,
        look_seconds: float | None = None,
    ) -> Job:
        """The job once it has ended, or as it stands when the time is over, the client gone, or the process drains.

        Args:
            read: gives the job's present state; its errors pass through.
            has_left: whether the client, for whom this is done, is there no more.
            look_seconds: how often that is asked; None: LOOK_SECONDS.
        """
        look = LOOK_SECONDS if look_seconds is None else look_seconds
        deadline = time.monotonic() + seconds
        with self._waiting(job_id) as woken:
            job = read(job_id)
            while not (job.status.is_terminal or self._drained.is_set() or has_left()):
                if (left := deadline - time.monotonic()) <= 0:
                    break
                if woken.wait(min(left, look)) or left <= look:
                    # Cleared before the read: what ends after it sets the event again.
                    woken.clear()
                    with self._turns:
                        job = read(job_id)
        return job

    def drain(self) -> None:
        """Let every wait, present and future, end at once: the process is about to stop."""
        self._drained.set()
        self.wake_all()
        self._subscription.close()

    def wake(self, _channel: str, ids: str) -> None:
        """Wake those who wait for these jobs.

        Args:
            ids: as a script announces them, all that ended in it, with spaces between.
        """
        with self._lock:
            events = [event for job_id in ids.split() for event in self._events.get(job_id, ())]
        for event in events:
            event.set()

    def wake_all(self) -> None:
        """Make everybody read again."""
        with self._lock:
            events = [event for group in self._events.values() for event in group]
        for event in events:
            event.set()

    def reread(self) -> None:
        """Wake those whose job has ended, whether a message said so or not."""
        with self._lock:
            ids = list(self._events)
        if not ids:
            return
        try:
            self.wake("", " ".join(self._find_ended(ids)))
        except RedisUnavailable:
            self.wake_all()

    def _keep_rereading(self) -> None:
        while not self._drained.wait(seconds_to_reread()):
            try:
                self.reread()
            except Exception:
                log.exception("Those who wait were not looked after; the next round goes on.")

    @contextmanager
    def _waiting(self, job_id: str) -> Iterator[threading.Event]:
        event = threading.Event()
        with self._lock:
            self._start()
            self._events[job_id].add(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[job_id].discard(event)
                if not self._events[job_id]:
                    del self._events[job_id]

    def _start(self) -> None:
        """On first use: in the gunicorn worker, after the fork."""
        if self._started or self._drained.is_set():
            return
        self._started = True
        self._subscription.start()
        threading.Thread(target=self._keep_rereading, name="reread", daemon=True).start()
