"""Between the engine's thread and Redis: claims come in and endings go out on a thread of their own."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpu_worker.batching import Batching
from gpu_worker.claim_watcher import ClaimWatcher
from gpu_worker.preemption import NO_PREEMPTION, NOTHING, Need, Preemption
from gpu_worker.returns import Returned, Returns
from promptq.contract.errors import RedisUnavailable
from promptq.contract.queues import PRIORITIES, Priority
from promptq.queue.store import ANY, Claim, Ending, JobStore, Terms
from promptq.runtime import failpoints

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.25
PATIENCE_SECONDS = 0.01
"""An urgent job is left to workers with a free slot for so long, before one that has none lets a row give way to it."""


class ClaimIO(threading.Thread):
    """Claims for free slots and stores endings, so that a decode step never waits for Redis.

    A claim is `held` from the claim until its ending is stored, and `unfinished` until its ending is delivered here:
    leases cover what is held, free slots are counted from what is unfinished. Both are kept by execution, because after
    a lost lease the same job may come back under a new one.

    Args:
        terms: which jobs its engine can take.
        preemption: when running rows give way to more urgent jobs.
        keep: stores the progress of rows that gave way, before their jobs are put back.
    """

    def __init__(
        self,
        store: JobStore,
        worker: str,
        batching: Batching,
        watcher: ClaimWatcher,
        terms: Terms = ANY,
        preemption: Preemption = NO_PREEMPTION,
        keep: Callable[[Sequence[Claim]], None] = lambda _: None,
    ) -> None:
        super().__init__(name="claim-io", daemon=True)
        self._store, self._worker = store, worker
        self._batching = batching
        self._watcher = watcher
        self._terms = terms
        self._preemption = preemption
        self._returns = Returns(store, keep)
        self._capacity = batching.slots
        self._changed = threading.Condition()
        self._held: dict[str, Claim] = {}
        self._unfinished: set[str] = set()
        self._gathered: list[Claim] = []
        self._gathering_since, self._look_for_urgent_at = 0.0, math.inf
        self._ready: deque[Claim] = deque()
        self._endings: list[Ending] = []
        self._returned: list[Returned] = []
        self._awake, self._claiming, self._closed = True, True, False

    # Called by the engine's thread.

    def take(self, at_most: int, wait_seconds: float = 0.0) -> list[Claim]:
        """The claims to start now, waiting at most this long for the first.

        Args:
            at_most: the engine's free slots; a row whose claim was lost holds one until the engine's next step.
        """
        with self._changed:
            if not self._ready and wait_seconds:
                self._changed.wait_for(lambda: self._ready or self._closed, wait_seconds)
            taken = [self._ready.popleft() for _ in range(min(at_most, len(self._ready)))]
            if taken and self._look_for_urgent_at < math.inf:
                self._changed.notify_all()
            return taken

    def waiting(self) -> list[Priority]:
        """The priorities of claims that were not taken yet: rows may give way to them when all slots are taken."""
        with self._changed:
            return [claim.priority for claim in self._ready]

    def put_back(self, returned: Sequence[Returned]) -> None:
        """Have jobs put back whose rows are gone without an end. Their slots are free from now on."""
        with self._changed:
            self._returned.extend(returned)
            self._unfinished.difference_update(one.claim.execution for one in returned)
            self._wake()

    def limit(self, capacity: int) -> None:
        """Hold no more unfinished claims: the engine takes no more. Those beyond go back, if not taken nor urgent."""
        with self._changed:
            if capacity != self._capacity:
                self._capacity = capacity
                self._wake()
            beyond = len(self._unfinished) - capacity if capacity < self._batching.slots else 0
            patient = [claim for claim in self._ready if not self._preemption.may_need(claim.priority)]
            if surplus := patient[max(0, len(patient) - beyond) :]:
                self._ready = deque(claim for claim in self._ready if claim not in surplus)
                self.put_back([Returned(claim, "upstream") for claim in surplus])

    def deliver(self, endings: Sequence[Ending]) -> None:
        """Hand endings over to be stored. Their slots are free from now on."""
        if not endings:
            return
        failpoints.hit("worker.finished")
        with self._changed:
            self._endings.extend(endings)
            self._unfinished.difference_update(ending.claim.execution for ending in endings)
            self._wake()

    def forget(self, claims: Sequence[Claim]) -> None:
        """These claims are no longer ours: nothing is to be stored for them."""
        self._watcher.let_go(claims)
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
        self._returns.release(claims)

    # Called by any thread.

    def wake(self, priority: Priority | None = None) -> bool:
        """Look at the queue again: something, of this priority, was put in. Tells whether there is room for it."""
        with self._changed:
            if self._preemption.may_need(priority or PRIORITIES[0]):
                self._look_for_urgent_at = min(self._look_for_urgent_at, time.monotonic() + PATIENCE_SECONDS)
            self._wake()
            return self._room() > 0

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
                while not self._has_work():
                    self._changed.wait(self._seconds_to_wait())
                if self._closed and not (self._endings or self._returned):
                    return
            try:
                is_refused = not self._try_to_return()
                self._exchange()
                if is_refused:
                    time.sleep(RETRY_SECONDS)
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
        comes = self._closed or self._endings or self._returned or (self._awake and self._room() > 0)
        return bool(comes) or self._seconds_to_wait() == 0

    def _room(self) -> int:
        if not self._claiming or self._runs_alone():
            return 0
        unfinished = len(self._unfinished)
        return min(self._batching.room(unfinished, self._is_gathering()), max(0, self._capacity - unfinished))

    def _need(self) -> Need:
        """What to claim though every slot is taken."""
        is_full = self._batching.is_full(len(self._unfinished), self._capacity)
        if not self._claiming or self._runs_alone() or not is_full:
            return NOTHING
        started = self._unfinished - {claim.execution for claim in self._ready}
        return self._preemption.need((claim for e, claim in self._held.items() if e in started), len(self._ready))

    def _runs_alone(self) -> bool:
        """Whether a suspect is here: whatever ran beside it could go down with it."""
        return any(claim.alone and claim.execution in self._unfinished for claim in self._held.values())

    def _is_gathering(self) -> bool:
        return len(self._gathered) == len(self._unfinished)

    def _seconds_to_wait(self) -> float | None:
        """How long a gathering batch still waits, or an urgent job is left to others; None: until something comes."""
        ends = [self._gathering_since + self._batching.max_wait_seconds] if self._gathered else []
        if self._look_for_urgent_at < math.inf and self._need().count:
            ends.append(self._look_for_urgent_at)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _try_to_return(self) -> bool:
        """Whether what goes back was put back; its leases are kept until it is."""
        with self._changed:
            returned = list(self._returned)
        if not returned:
            return True
        if is_sent := self._returns.try_to_send(returned):
            with self._changed:
                del self._returned[: len(returned)]
                self.forget([one.claim for one in returned])
        return is_sent

    def _exchange(self) -> None:
        """Store what has ended and claim what there is room for, in one round trip."""
        with self._changed:
            endings = list(self._endings)
            need = self._what_to_claim()
            terms = replace(self._terms, busy=bool(self._unfinished), above=need.above)
        stored, claims = self._store.finish_and_claim(self._worker, endings, need.count, terms)
        if claims:
            failpoints.hit("worker.claimed")
        if endings:
            failpoints.hit("worker.stored")
        self._watcher.claimed(claims)
        with self._changed:
            del self._endings[: len(endings)]
            for ending in endings:
                self._held.pop(ending.claim.execution, None)
            self._hold(claims, need)
            self._start_batch()
        self._watcher.stored(endings, stored)

    def _what_to_claim(self) -> Need:
        awake, self._awake = self._awake, False
        if awake and (room := self._room()):
            return Need(room)
        need = self._need() if self._look_for_urgent_at <= time.monotonic() else NOTHING
        if need.count:
            self._look_for_urgent_at = math.inf
        return need

    def _replace_what_cannot_be_stored(self) -> None:
        """One such ending would keep all others from being stored."""
        with self._changed:
            self._endings = [ending.storable() for ending in self._endings]

    def _hold(self, claims: list[Claim], need: Need) -> None:
        if claims and not self._gathered:
            self._gathering_since = time.monotonic()
        gathers = self._is_gathering()
        self._held.update((claim.execution, claim) for claim in claims)
        self._unfinished.update(claim.execution for claim in claims)
        if need.above:
            self._ready.extendleft(reversed(claims))
        else:
            (self._gathered if gathers else self._ready).extend(claims)
        # As many as there was room for: there may be more.
        if len(claims) == need.count > 0:
            self._awake = True
            self._look_for_urgent_at = time.monotonic() if need.above else self._look_for_urgent_at

    def _start_batch(self) -> None:
        if self._gathered and self._batching.starts(len(self._gathered), time.monotonic() - self._gathering_since):
            self._ready.extend(self._gathered)
            self._gathered.clear()
        self._changed.notify_all()
