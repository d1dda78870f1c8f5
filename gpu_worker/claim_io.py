"""The desk between the engine's thread and Redis: claims come in and endings go out on a thread of their own."""

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
YIELD_JOBS = 16
"""Of smaller batches several go together when it does not step aside, and a round trip saved is worth more there."""
YIELD_SECONDS = 2e-5
"""An engine that is through at once keeps the interpreter, and would go on to its next batch before these endings are
sent: then it waits while Redis works, and Redis while it does. So it steps aside for as long as sending them takes."""


class ClaimIO(threading.Thread):
    """Claims for free slots and stores endings, so that a decode step never waits for Redis.

    A claim is `held` from the claim until its ending is stored, and `unfinished` until its ending
    is delivered here; leases cover what is held, free slots are counted from what is unfinished.
    Both are kept by execution: after a lost lease the same job may come back under a new one.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        batching: Batching,
        on_stored: Callable[[Sequence[Ending], Sequence[bool]], None],
    ) -> None:
        super().__init__(name="claim-io", daemon=True)
        self._store = store
        self._worker = worker
        self._batching = batching
        self._on_stored = on_stored
        self._changed = threading.Condition()
        self._held: dict[str, Claim] = {}
        self._unfinished: set[str] = set()
        self._gathered: list[Claim] = []
        self._gathering_since = 0.0
        self._ready: deque[Claim] = deque()
        self._endings: list[Ending] = []
        self._ahead = 0
        self._delivered_at = time.monotonic()
        self._awake = True
        self._claiming = True
        self._closed = False

    # The engine's side.

    def take(self, wait_seconds: float = 0.0, at_most: int | None = None) -> list[Claim]:
        """The claims to start now, waiting at most this long for the first; those claimed ahead stay for later."""
        with self._changed:
            if not self._ready and wait_seconds:
                self._changed.wait_for(lambda: self._ready or self._closed, wait_seconds)
            count = len(self._ready) if at_most is None else min(at_most, len(self._ready))
            return [self._ready.popleft() for _ in range(count)]

    def deliver(self, endings: Sequence[Ending]) -> None:
        """Hand endings over to be stored. Their slots are free from now on."""
        if not endings:
            return
        with self._changed:
            self._endings.extend(endings)
            now = time.monotonic()
            self._ahead = self._batching.ahead(len(endings), now - self._delivered_at)
            self._delivered_at = now
            self._unfinished.difference_update(ending.claim.execution for ending in endings)
            self._awake = True
            self._changed.notify_all()
            quick = self._ahead >= YIELD_JOBS
        if quick:
            time.sleep(YIELD_SECONDS)

    def forget(self, claims: Iterable[Claim]) -> None:
        """These claims are no longer ours: nothing is to be stored for them."""
        with self._changed:
            for claim in claims:
                self._held.pop(claim.execution, None)
                self._unfinished.discard(claim.execution)
            self._awake = True
            self._changed.notify_all()

    # The other threads' side.

    def wake(self) -> None:
        """Look at the queue again: something was put in."""
        with self._changed:
            self._awake = True
            self._changed.notify_all()

    def held(self) -> list[Claim]:
        """Every claim whose lease must be kept alive."""
        with self._changed:
            return list(self._held.values())

    def unfinished(self) -> int:
        """Claims that have no ending yet."""
        with self._changed:
            return len(self._unfinished)

    def stop_claiming(self) -> list[Claim]:
        """Claim no more. Returns, and forgets, the claims that were not started."""
        with self._changed:
            self._claiming = False
            unstarted = [*self._ready, *self._gathered]
            self._ready.clear()
            self._gathered.clear()
            self.forget(unstarted)
            self._changed.notify_all()
            return unstarted

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
                self._changed.wait_for(self._has_work, self._patience())
                if self._closed and not self._endings:
                    return
            try:
                self._turn()
            except RedisUnavailable as error:
                log.warning("%s; trying again", error)
                time.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("The round of claims and endings failed; trying again.")
                time.sleep(RETRY_SECONDS)

    def _has_work(self) -> bool:
        return bool(self._closed or self._endings or (self._awake and self._room() > 0))

    def _room(self) -> int:
        if not self._claiming or self._runs_alone():
            return 0
        return self._batching.room(len(self._unfinished), self._is_gathering(), self._ahead)

    def _runs_alone(self) -> bool:
        """A suspect is here: whatever ran beside it could go down with it."""
        return any(claim.alone and claim.execution in self._unfinished for claim in self._held.values())

    def _is_gathering(self) -> bool:
        return len(self._gathered) == len(self._unfinished)

    def _patience(self) -> float | None:
        """Seconds until a gathering batch must start; None when none is gathering."""
        if not self._gathered:
            return None
        return max(0.0, self._gathering_since + self._batching.max_wait_seconds - time.monotonic())

    def _turn(self) -> None:
        """Store what has ended and claim what there is room for, in one round trip."""
        with self._changed:
            endings = list(self._endings)
            room = self._room() if self._awake else 0
            busy = bool(self._unfinished)
            self._awake = False
        stored, claims = self._store.finish_and_claim(self._worker, endings, room, busy=busy)
        with self._changed:
            del self._endings[: len(endings)]
            for ending in endings:
                self._held.pop(ending.claim.execution, None)
            self._hold(claims, room)
            if self._gathered and self._batching.starts(len(self._gathered), time.monotonic() - self._gathering_since):
                self._ready.extend(self._gathered)
                self._gathered.clear()
            if claims or self._ready:
                self._changed.notify_all()
        if endings:
            self._on_stored(endings, stored)

    def _hold(self, claims: list[Claim], room: int) -> None:
        if claims and not self._gathered:
            self._gathering_since = time.monotonic()
        idle = self._is_gathering()
        self._held.update((claim.execution, claim) for claim in claims)
        self._unfinished.update(claim.execution for claim in claims)
        (self._gathered if idle else self._ready).extend(claims)
        self._awake = self._awake or len(claims) == room > 0
