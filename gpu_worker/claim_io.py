"""Between the engine's thread and Redis: claims come in and endings go out on a thread of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gpu_worker.batching import Batching
from promptq.contract.errors import RedisUnavailable
from promptq.queue.store import Claim, Ending, JobStore

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.25


class ClaimIO(threading.Thread):
    """Claims for free slots and stores endings, so that a decode step never waits for Redis.

    A claim is `held` from the claim until its ending is stored, and `unfinished` until its ending is delivered here:
    leases cover what is held, free slots are counted from what is unfinished. Both are kept by execution, because after
    a lost lease the same job may come back under a new one.

    Args:
        on_stored: told of endings that were sent, and whether each was accepted.
        resumes: the identity of the engine's model, where it goes on with what earlier runs generated.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        batching: Batching,
        on_stored: Callable[[Sequence[Ending], Sequence[bool]], None],
        resumes: str = "",
    ) -> None:
        super().__init__(name="claim-io", daemon=True)
        self._store = store
        self._worker = worker
        self._batching = batching
        self._on_stored = on_stored
        self._resumes = resumes
        self._changed = threading.Condition()
        self._held: dict[str, Claim] = {}
        self._unfinished: set[str] = set()
        self._gathered: list[Claim] = []
        self._gathering_since = 0.0
        self._ready: deque[Claim] = deque()
        self._endings: list[Ending] = []
        self._awake = True
        self._claiming = True
        self._closed = False

    # Called by the engine's thread.

    def take(self, at_most: int, wait_seconds: float = 0.0) -> list[Claim]:
        """The claims to start now, waiting at most this long for the first.

        Args:
            at_most: the engine's free slots; a row whose claim was lost holds one until the engine's next step.
        """
        with self._changed:
            if not self._ready and wait_seconds:
                self._changed.wait_for(lambda: self._ready or self._closed, wait_seconds)
            return [self._ready.popleft() for _ in range(min(at_most, len(self._ready)))]

    def deliver(self, endings: Sequence[Ending]) -> None:
        """Hand endings over to be stored. Their slots are free from now on."""
        if not endings:
            return
        with self._changed:
            self._endings.extend(endings)
            self._unfinished.difference_update(ending.claim.execution for ending in endings)
            self._wake()

    def forget(self, claims: Iterable[Claim]) -> None:
        """These claims are no longer ours: nothing is to be stored for them."""
        with self._changed:
            for claim in claims:
                self._held.pop(claim.execution, None)
                self._unfinished.discard(claim.execution)
            self._wake()

    def stop_claiming(self) -> list[Claim]:
        """Claim no more. Returns, and forgets, the claims that were not started."""
        with self._changed:
            self._claiming = False
            unstarted = [*self._ready, *self._gathered]
            self._ready.clear()
            self._gathered.clear()
            self.forget(unstarted)
            return unstarted

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Forget claims, and put their jobs back at the front of their queues with the attempt not counted."""
        if not claims:
            return
        self.forget(claims)
        try:
            released = self._store.release(claims)
            log.info("%d of %d jobs were put back", released, len(claims))
        except RedisUnavailable as error:
            log.warning("%d jobs come back when their leases end: %s", len(claims), error)

    # Called by any thread.

    def wake(self) -> None:
        """Look at the queue again: something was put in."""
        with self._changed:
            self._wake()

    def held(self) -> list[Claim]:
        """Every claim whose lease must be kept alive."""
        with self._changed:
            return list(self._held.values())

    def holds(self, job_id: str) -> bool:
        """Whether a claim of this job is held."""
        return any(claim.id == job_id for claim in self.held())

    def unfinished(self) -> int:
        """Claims that have no ending yet."""
        with self._changed:
            return len(self._unfinished)

    def close(self, wait_seconds: float) -> None:
        """Store what was delivered, waiting at most this long for Redis, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.join(wait_seconds)

    def run(self) -> None:
        """Store and claim whenever there is something to store or to claim."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._seconds_to_gather())
                if self._closed and not self._endings:
                    return
            try:
                self._exchange()
            except RedisUnavailable as error:
                log.warning("%s; trying again", error)
                time.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("A round of claims and endings failed; trying again.")
                self._replace_what_cannot_be_stored()
                time.sleep(RETRY_SECONDS)

    def _wake(self) -> None:
        self._awake = True
        self._changed.notify_all()

    def _has_work(self) -> bool:
        return bool(self._closed or self._endings or (self._awake and self._room() > 0))

    def _room(self) -> int:
        if not self._claiming or self._runs_alone():
            return 0
        return self._batching.room(len(self._unfinished), self._is_gathering())

    def _runs_alone(self) -> bool:
        """Whether a suspect is here: whatever ran beside it could go down with it."""
        return any(claim.alone and claim.execution in self._unfinished for claim in self._held.values())

    def _is_gathering(self) -> bool:
        return len(self._gathered) == len(self._unfinished)

    def _seconds_to_gather(self) -> float | None:
        """How long a gathering batch may still wait; None when none is gathering."""
        if not self._gathered:
            return None
        return max(0.0, self._gathering_since + self._batching.max_wait_seconds - time.monotonic())

    def _exchange(self) -> None:
        """Store what has ended and claim what there is room for, in one round trip."""
        with self._changed:
            endings = list(self._endings)
            room = self._room() if self._awake else 0
            busy = bool(self._unfinished)
            self._awake = False
        stored, claims = self._store.finish_and_claim(self._worker, endings, room, busy=busy, resumes=self._resumes)
        with self._changed:
            del self._endings[: len(endings)]
            for ending in endings:
                self._held.pop(ending.claim.execution, None)
            self._hold(claims, room)
            self._start_batch()
        if endings:
            self._on_stored(endings, stored)

    def _replace_what_cannot_be_stored(self) -> None:
        """One such ending would keep all others from being stored."""
        with self._changed:
            self._endings = [ending.storable() for ending in self._endings]

    def _hold(self, claims: list[Claim], room: int) -> None:
        if claims and not self._gathered:
            self._gathering_since = time.monotonic()
        gathers = self._is_gathering()
        self._held.update((claim.execution, claim) for claim in claims)
        self._unfinished.update(claim.execution for claim in claims)
        (self._gathered if gathers else self._ready).extend(claims)
        # As many as there was room for: there may be more.
        self._awake = self._awake or len(claims) == room > 0

    def _start_batch(self) -> None:
        if self._gathered and self._batching.starts(len(self._gathered), time.monotonic() - self._gathering_since):
            self._ready.extend(self._gathered)
            self._gathered.clear()
        if self._ready:
            self._changed.notify_all()
