"""Everybody in this process who waits for a job's end, woken by one subscription."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from promptq.contract.job import Job
from promptq.queue.listener import Listener

READERS = 16
"""Of a thousand waiters woken together, so many read at once: more would only run into Redis time-outs."""


class Waiters:
    """Waits hold no Redis connection: one subscription tells which job has ended.

    Messages may be lost while the subscription is away, so both its loss and its return wake everybody
    to read again; while Redis is down that read fails, and the wait with it.

    Args:
        done_channel: carries the ids of jobs that have ended.
    """

    def __init__(self, url: str, done_channel: str, make_listener: Callable[..., Listener] = Listener) -> None:
        self._url = url
        self._channel = done_channel
        self._make_listener = make_listener
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._events: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._draining = False
        self._turns = threading.Semaphore(READERS)

    def wait_for(self, job_id: str, seconds: float, read: Callable[[str], Job]) -> Job:
        """The job once it has ended, or as it stands when the time is over or the process drains.

        Args:
            read: gives the job's present state; its errors pass through.
        """
        deadline = time.monotonic() + seconds
        with self._waiting(job_id) as woken:
            job = read(job_id)
            while not (job.status.is_terminal or self._draining) and (left := deadline - time.monotonic()) > 0:
                woken.wait(left)
                # Cleared before the read: what ends after it sets the event again.
                woken.clear()
                with self._turns:
                    job = read(job_id)
        return job

    def drain(self) -> None:
        """Let every wait, present and future, end at once: the process is about to stop."""
        self._draining = True
        self.wake_all()
        if self._listener:
            self._listener.close()

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
        """Subscribe on first use: in the gunicorn worker, after the fork."""
        if self._listener is None and not self._draining:
            self._listener = self._make_listener(
                self._url, [self._channel], self.wake, on_connect=self.wake_all, on_disconnect=self.wake_all
            )
            self._listener.start()
