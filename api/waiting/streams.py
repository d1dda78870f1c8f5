"""Everybody in this process who reads a job's text as it comes, served by one reader."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from api.waiting.waiters import seconds_to_reread
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job, Status
from promptq.queue.listener import Listener
from promptq.queue.progress import Followed, Place
from promptq.queue.scripts import JOBS_PER_SCRIPT

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.01
"""Between two looks, so that messages that come together are served by one."""


class Follow(Protocol):
    """Reads what jobs have generated since; with `watch` their workers tell at every step from now on."""

    def __call__(self, places: Sequence[Place], *, watch: bool) -> list[Followed]: ...


@dataclass(frozen=True, slots=True)
class View:
    """A job as its readers see it.

    Attributes:
        status: None: the job is there no more.
        resets: how often the job started over; its text is that of the last start.
        job: the whole job, once it has ended.
    """

    status: Status | None
    resets: int
    text: str
    job: Job | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.job is not None or self.status is None


class Feed:
    """One job's text in this process, and who reads it: a text is kept once, however many read it, and how slowly."""

    def __init__(self, job_id: str) -> None:
        self.place = Place(job_id)
        self.view = View(Status.QUEUED, 0, "")
        self.readers: set[threading.Event] = set()

    @property
    def is_new(self) -> bool:
        """Whether it was never looked at."""
        return not self.place.source

    def take(self, followed: Followed) -> None:
        """Add what the job has generated since; all of it, where it started over or has another job's text now."""
        goes_on = (followed.source, followed.resets) == (self.place.source, self.view.resets)
        text = (self.view.text if goes_on else "") + "".join(piece for _, piece in followed.entries)
        last = followed.entries[-1][0] if followed.entries else self.place.last if goes_on else ""
        self.place = Place(self.place.job_id, followed.source, last)
        self.view = View(followed.status, followed.resets, text)

    def end(self, job: Job | None) -> None:
        """The job has ended: what is stored is what counts."""
        text = job.result.text if job and job.result else self.view.text
        self.view = View(job.status if job else None, self.view.resets, text, job)

    def wake(self) -> None:
        """Tell those who read."""
        for reader in self.readers:
            reader.set()


class Streams:
    """Readers hold no Redis connection: one subscription tells which jobs moved, and one thread reads for all.

    Messages may be lost, so every few seconds all that is read is looked at.

    Args:
        channels: carry ids of jobs that got text, and of those that ended.
        follow: reads what jobs have generated since.
        read_jobs: reads whole jobs.
    """

    def __init__(
        self,
        url: str,
        channels: Sequence[str],
        follow: Follow,
        read_jobs: Callable[[Sequence[str]], Sequence[Job | None]],
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._channels = channels
        self._follow = follow
        self._read_jobs = read_jobs
        self._on_loss = on_loss
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        self._changed: set[str] = set()
        self._woken = threading.Event()
        self.drained = threading.Event()

    @contextmanager
    def reading(self, job_id: str) -> Iterator[tuple[Feed, threading.Event]]:
        """A job's feed, and what is set whenever it changed."""
        event = threading.Event()
        with self._lock:
            self._start()
            feed = self._feeds.setdefault(job_id, Feed(job_id))
            feed.readers.add(event)
            self._changed.add(job_id)
        self._woken.set()
        try:
            yield feed, event
        finally:
            with self._lock:
                feed.readers.discard(event)
                if not feed.readers and self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]

    def drain(self) -> None:
        """Let every stream end: the process is about to stop."""
        self.drained.set()
        self._woken.set()
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.wake()
        if self._listener:
            self._listener.close()

    def note(self, _channel: str, ids: str) -> None:
        """These jobs moved or ended."""
        moved = set(ids.split())
        with self._lock:
            changed = [id for id, feed in self._feeds.items() if id in moved or feed.place.source in moved]
            self._changed.update(changed)
        if changed:
            self._woken.set()

    def note_all(self) -> None:
        """Messages may have been missed: look at everything."""
        with self._lock:
            self._changed.update(self._feeds)
        self._woken.set()

    def _start(self) -> None:
        """Subscribe on first use: in the gunicorn worker, after the fork."""
        if self._listener is None and not self.drained.is_set():
            self._listener = Listener(self._url, self._channels, self.note, self.note_all, self._on_loss)
            self._listener.start()
            threading.Thread(target=self._keep_reading, name="streams", daemon=True).start()

    def _keep_reading(self) -> None:
        all_at = 0.0
        while not self.drained.is_set():
            self._woken.wait(seconds_to_reread())
            self._woken.clear()
            is_time = time.monotonic() >= all_at
            if is_time:
                all_at = time.monotonic() + seconds_to_reread()
            try:
                self._look(everything=is_time)
            except RedisUnavailable as error:
                log.warning("Streams wait for Redis: %s", error)
            except Exception:
                log.exception("A look at what jobs have generated failed; the next one goes on.")
            time.sleep(LOOK_SECONDS)

    def _look(self, *, everything: bool) -> None:
        with self._lock:
            ids = list(self._feeds) if everything else list(self._changed)
            self._changed.clear()
            feeds = [self._feeds[id] for id in ids if id in self._feeds]
        for start in range(0, len(feeds), JOBS_PER_SCRIPT):
            self._look_at(feeds[start : start + JOBS_PER_SCRIPT], watch=everything)

    def _look_at(self, feeds: Sequence[Feed], *, watch: bool) -> None:
        feeds = [feed for feed in feeds if not feed.view.is_over]
        watch = watch or any(feed.is_new for feed in feeds)
        for feed, followed in zip(feeds, self._follow([feed.place for feed in feeds], watch=watch), strict=True):
            feed.take(followed)
        self._end([feed for feed in feeds if feed.view.status is None or feed.view.status.is_terminal])
        for feed in feeds:
            feed.wake()

    def _end(self, feeds: Iterable[Feed]) -> None:
        ended = list(feeds)
        for feed, job in zip(ended, self._read_jobs([feed.place.job_id for feed in ended]), strict=True):
            feed.end(job)
