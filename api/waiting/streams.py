"""Everybody in this process who reads a job's text as it comes, served by one reader."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from api.waiting.subscription import Hearer, Subscription
from api.waiting.waiters import seconds_to_reread
from promptq.contract.errors import RedisUnavailable
from promptq.contract.job import Job, Status
from promptq.contract.logprobs import TokenLogprob
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
        logprobs: of the text's tokens, where they were asked for.
    """

    status: Status | None
    resets: int
    text: str
    job: Job | None = None
    logprobs: Sequence[TokenLogprob] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.job is not None or self.status is None


class Feed:
    """One job's text in this process, and who reads it: a text is kept once, however many read it, and how slowly.

    Attributes:
        sources: jobs that this one joined and that generated its text.
    """

    def __init__(self, job_id: str) -> None:
        self.place = Place(job_id)
        self.view = View(Status.QUEUED, 0, "")
        self.readers: set[threading.Event] = set()
        self.sources: set[str] = set()

    @property
    def is_new(self) -> bool:
        """Whether it was never looked at."""
        return not self.place.source

    def take(self, followed: Followed) -> bool:
        """Add what the job has generated since; all of it, where it started over or has another job's text now.

        Returns whether all must be read again: a server that came back without its last second may have other entries
        than were read. Until then the text stays what it was.
        """
        goes_on = (followed.source, followed.resets) == (self.place.source, self.view.resets)
        before = self.view if goes_on else View(followed.status, followed.resets, "")
        last = self.place.last if goes_on else ""
        again = bool(last) and not followed.goes_on_behind(last)
        text, logprobs = before.text, before.logprobs
        if again:
            last = ""
        elif followed.entries:
            text = (text if last else "") + "".join(piece for _, piece in followed.entries)
            logprobs = (*(logprobs if last else ()), *followed.logprobs)
            last = followed.entries[-1][0]
        self.place = Place(self.place.job_id, followed.source, last)
        self.view = View(followed.status, followed.resets, text, logprobs=logprobs)
        return again

    def end(self, job: Job | None) -> None:
        """The job has ended: what is stored is what counts."""
        told = job.result if job and job.result else self.view
        self.view = View(job.status if job else None, self.view.resets, told.text, job, told.logprobs)

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
        subscription: Subscription,
        channels: Sequence[str],
        follow: Follow,
        read_jobs: Callable[[Sequence[str]], Sequence[Job | None]],
    ) -> None:
        subscription.add(Hearer(channels, self.note, self.note_all))
        self._subscription = subscription
        self._follow = follow
        self._read_jobs = read_jobs
        self._started = False
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}
        self._joined: defaultdict[str, set[str]] = defaultdict(set)
        self._changed: set[str] = set()
        self._woken = threading.Event()
        self.drained = threading.Event()

    @contextmanager
    def reading(self, job_ids: Iterable[str]) -> Iterator[tuple[list[Feed], threading.Event]]:
        """Jobs' feeds, in order, and what is set whenever one of them changed."""
        event = threading.Event()
        with self._lock:
            self._start()
            feeds = [self._feeds.setdefault(job_id, Feed(job_id)) for job_id in job_ids]
            for feed in feeds:
                feed.readers.add(event)
                self._changed.add(feed.place.job_id)
        self._woken.set()
        try:
            yield feeds, event
        finally:
            with self._lock:
                for feed in feeds:
                    self._leave(feed, event)

    def drain(self) -> None:
        """Let every stream end: the process is about to stop."""
        self.drained.set()
        self._woken.set()
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.wake()
        self._subscription.close()

    def note(self, _channel: str, ids: str) -> None:
        """These jobs moved or ended."""
        with self._lock:
            moved = {id for source in ids.split() for id in (source, *self._joined.get(source, ()))}
            changed = moved & self._feeds.keys()
            self._changed |= changed
        if changed:
            self._woken.set()

    def note_all(self) -> None:
        """Messages may have been missed: look at everything."""
        with self._lock:
            self._changed.update(self._feeds)
        self._woken.set()

    def _start(self) -> None:
        """On first use: in the gunicorn worker, after the fork."""
        if self._started or self.drained.is_set():
            return
        self._started = True
        self._subscription.start()
        threading.Thread(target=self._keep_reading, name="streams", daemon=True).start()

    def _leave(self, feed: Feed, reader: threading.Event) -> None:
        feed.readers.discard(reader)
        if not feed.readers and self._feeds.get(feed.place.job_id) is feed:
            self._forget(feed)

    def _forget(self, feed: Feed) -> None:
        del self._feeds[feed.place.job_id]
        for source in feed.sources:
            self._joined[source].discard(feed.place.job_id)
            if not self._joined[source]:
                del self._joined[source]

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
        found = self._follow([feed.place for feed in feeds], watch=watch)
        again = [feed.place.job_id for feed, followed in zip(feeds, found, strict=True) if feed.take(followed)]
        if again:
            self.note("", " ".join(again))
        self._note_sources(feeds)
        self._end([feed for feed in feeds if feed.view.status is None or feed.view.status.is_terminal])
        for feed in feeds:
            feed.wake()

    def _note_sources(self, feeds: Iterable[Feed]) -> None:
        """A joined job's text is announced as that of the job that generates it."""
        joined = [feed for feed in feeds if feed.place.source not in ("", feed.place.job_id, *feed.sources)]
        with self._lock:
            for feed in joined:
                if self._feeds.get(feed.place.job_id) is feed:
                    feed.sources.add(feed.place.source)
                    self._joined[feed.place.source].add(feed.place.job_id)

    def _end(self, feeds: Iterable[Feed]) -> None:
        ended = list(feeds)
        for feed, job in zip(ended, self._read_jobs([feed.place.job_id for feed in ended]), strict=True):
            feed.end(job)
