"""Keeps what running rows have generated in Redis, on a thread of its own, so that another worker can go on there."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Event
from promptq.contract.errors import RedisUnavailable
from promptq.contract.logprobs import TokenLogprob
from promptq.queue.progress import Append, append
from promptq.queue.records import Claim
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.queue.store import JobStore
from promptq.runtime import failpoints

log = logging.getLogger(__name__)

WATCHED_SECONDS = 0.03
"""Between two looks at rows whose text somebody reads as it comes."""
LATELY = 1000
"""So many messages are remembered for rows that have no token yet."""


@dataclass(slots=True)
class _Tail:
    """What one row has generated since it was last kept.

    Attributes:
        kept: tokens that are in Redis.
        due: when the rest is to follow, in steady seconds.
        sent: what was sent and not acknowledged; it is sent again as it was, so that a repeat adds nothing.
        is_off: what is in Redis is not what this row began with; nothing more is kept of it.
        watched: somebody reads along.
    """

    claim: Claim
    kept: int
    due: float
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    sent: Append | None = None
    is_off: bool = False
    watched: bool = False

    def add(self, event: Event) -> None:
        self.token_ids.extend(event.token_ids)
        self.text += event.text
        self.logprobs.extend(event.logprobs)

    def next_append(self) -> Append | None:
        """What is to be sent now, if anything is."""
        if self.sent is None and self.token_ids and not self.is_off:
            self.sent = Append(self.claim, self.kept, tuple(self.token_ids), self.text, tuple(self.logprobs))
            self.token_ids, self.text, self.logprobs = [], "", []
        return self.sent

    def acknowledge(self, reply: str) -> None:
        """A lost claim may come back to the row (see `follow`): what was sent stays."""
        self.watched = self.watched or reply == "watched"
        if reply in ("ok", "watched") and self.sent:
            self.kept += len(self.sent.token_ids)
            self.sent = None
        elif reply == "failed":
            self.sent, self.is_off = None, True

    def follow(self, claim: Claim) -> None:
        """The row goes on under another claim, which says how much of it is in Redis."""
        if self.sent and len(claim.progress) == self.kept + len(self.sent.token_ids):
            self.acknowledge("ok")
        self.claim, self.is_off = claim, len(claim.progress) != self.kept
        self.sent = replace(self.sent, claim=claim) if self.sent and not self.is_off else None


class ProgressKeeper(threading.Thread):
    """Takes what the loop hands on, and sends what is due; nothing here makes a decode step wait for Redis.

    While Redis is away it is kept here, which is no more than the rows' own texts.

    Args:
        identity: of the model: only one like it goes on with its tokens.
        interval_seconds: how often each row's progress is kept; 0: only when `keep` is called. Rows that somebody
            watches are kept more often.
        clock: steady seconds.
    """

    def __init__(
        self, store: JobStore, identity: str, interval_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name="progress", daemon=True)
        self._store = store
        self._identity = identity
        self._interval = interval_seconds
        self._clock = clock
        self._tails: dict[str, _Tail] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._lately_watched: deque[str] = deque(maxlen=LATELY)
        self._asked: set[str] = set()
        self._woken = threading.Event()
        self._closed = False

    def watch(self, job_id: str) -> None:
        """Somebody reads this job's text as it comes. It may be one that is being claimed just now."""
        with self._lock:
            self._lately_watched.append(job_id)
            if tail := self._tails.get(job_id):
                tail.watched = True
                self._woken.set()

    def look_again(self, job_ids: Iterable[str]) -> None:
        """Word of readers may have been missed: keep these jobs' progress once without delay, as the reply tells it.

        Args:
            job_ids: of what is claimed, begun or not.
        """
        with self._lock:
            self._asked = set(job_ids)
            now = self._clock()
            for job_id in self._asked & self._tails.keys():
                self._tails[job_id].due = now
            self._woken.set()

    def took(self, run: Run, event: Event) -> None:
        """A row of this run got text or tokens, or ended: then its ending is stored, and nothing here."""
        with self._lock:
            if event.end:
                self._tails.pop(run.claim.id, None)
            elif event.token_ids:
                self._tail(run).add(event)

    def dropped(self, run: Run) -> None:
        """The row is not ours any more."""
        with self._lock:
            self._tails.pop(run.claim.id, None)

    def keep(self) -> None:
        """Keep now what all rows have generated."""
        self._send_all(list(self._tails))

    def give_up(self, claims: Sequence[Claim]) -> None:
        """Keep what the rows of these claims have generated, and forget them: others will go on with it.

        Raises:
            RedisUnavailable: it could not be stored; nothing is forgotten.
        """
        try:
            self._send_all([claim.id for claim in claims])
        except RedisUnavailable:
            raise
        except Exception:
            log.exception("The newest tokens of %d rows are not kept.", len(claims))
        self._forget(claims)

    def _forget(self, claims: Sequence[Claim]) -> None:
        with self._lock:
            for claim in claims:
                # Its job may have come back meanwhile, to run here under another claim.
                if (tail := self._tails.get(claim.id)) and tail.claim.execution == claim.execution:
                    del self._tails[claim.id]

    def run(self) -> None:
        """Send what is due, until closed."""
        while not self._closed:
            self._woken.wait(self._seconds_to_look())
            self._woken.clear()
            try:
                self._send(self._due(self._clock()))
            except RedisUnavailable as error:
                log.warning("Progress was not kept; trying again: %s", error)
            except Exception:
                log.exception("Progress was not kept; the next round goes on.")

    def close(self) -> None:
        """End the thread and wait for it."""
        self._closed = True
        self._woken.set()
        self.join()

    def _tail(self, run: Run) -> _Tail:
        claim = run.claim
        tail = self._tails.get(claim.id)
        if tail is None:
            now, is_off = self._clock(), len(claim.progress) != run.generated
            due = now if claim.id in self._asked else self._next(now)
            watched = claim.watched or claim.id in self._lately_watched
            tail = self._tails[claim.id] = _Tail(claim, run.generated, due, is_off=is_off, watched=watched)
            if watched or due == now:
                self._woken.set()
        if tail.claim.execution != claim.execution:
            tail.follow(claim)
        return tail

    def _seconds_to_look(self) -> float | None:
        with self._lock:
            if any(tail.watched for tail in self._tails.values()):
                return WATCHED_SECONDS
        return self._interval / 4 or None

    def _due(self, now: float) -> list[str]:
        with self._lock:
            due = [id for id, tail in self._tails.items() if tail.watched or tail.due <= now]
            for job_id in due:
                self._tails[job_id].due = self._next(now)
        return due

    def _next(self, now: float) -> float:
        return now + (self._interval or math.inf)

    def _send_all(self, ids: Sequence[str]) -> None:
        # The first time may only repeat what was sent before and not acknowledged.
        self._send(ids)
        self._send(ids)

    def _send(self, ids: Sequence[str]) -> None:
        """One at a time, so that the entries of a job come in their order."""
        with self._sending:
            for start in range(0, len(ids), JOBS_PER_SCRIPT):
                self._send_some(ids[start : start + JOBS_PER_SCRIPT])

    def _send_some(self, ids: Sequence[str]) -> None:
        with self._lock:
            tails = [tail for job_id in ids if (tail := self._tails.get(job_id)) and tail.next_append()]
            appends = [tail.sent for tail in tails if tail.sent]
        if appends:
            failpoints.hit("worker.progress_sending")
        replies = append(self._store, self._identity, appends)
        if appends:
            failpoints.hit("worker.progress_kept")
        with self._lock:
            for tail, sent, reply in zip(tails, appends, replies, strict=True):
                # Meanwhile the row may have come to go on under another claim, which knows what was kept.
                if tail.sent is sent:
                    tail.acknowledge(reply)
