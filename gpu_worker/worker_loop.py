"""The worker's loop: claim → engine → finish. One thread owns the engine; Redis is on others."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence

from gpu_worker import claim_conversion
from gpu_worker.batching import Batching
from gpu_worker.claim_conversion import Run
from gpu_worker.claim_io import ClaimIO
from gpu_worker.engines.base import Engine, Event
from gpu_worker.leases import LeaseKeeper
from gpu_worker.registration import WorkerRegistration
from gpu_worker.telemetry import Telemetry
from promptq.contract.errors import InvalidRequest, RedisUnavailable
from promptq.contract.settings import WorkerSettings
from promptq.queue.listener import Listener
from promptq.queue.store import Claim, Ending, JobStore
from promptq.runtime.lifecycle import Stop

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How often an idle worker looks at its stop flag. Work wakes it at once."""
CLOSE_SECONDS = 5.0


class WorkerLoop:
    """Runs one engine against the queue until the stop is requested, then drains.

    The desk claims and stores, the lease keeper renews, the listener hears wakes and cancels; this
    object's `run` steps the engine.
    """

    def __init__(
        self,
        store: JobStore,
        engine: Engine,
        worker: WorkerRegistration,
        telemetry: Telemetry,
        settings: WorkerSettings,
    ) -> None:
        self._store = store
        self._engine = engine
        self._worker = worker
        self._telemetry = telemetry
        self._model = engine.info.model
        self._settings = settings
        self._runs: dict[str, Run] = {}
        self._lost: deque[Claim] = deque()
        self._cancelled: deque[str] = deque()
        self._draining = False
        batching = Batching(settings.batching, engine.info.slots, settings.max_wait_ms / 1000)
        self._claim_io = ClaimIO(store, worker.name, batching, self._on_stored)
        self._leases = LeaseKeeper(store, self._claim_io, self._beat, self._on_verdict)
        self._keys = settings.keys
        channels = (self._keys.wake_channel, self._keys.cancel_channel)
        self._listener = Listener(settings.redis_url, channels, self._on_message, self._claim_io.wake)

    def run(self, stop: Stop) -> None:
        """Work until `stop` is requested, then finish or give back what is held."""
        self._worker.appear()
        for thread in (self._listener, self._claim_io, self._leases):
            thread.start()
        log.info("ready: %s serves %s", self._worker.name, self._engine.info)
        try:
            while not stop.requested:
                self._round(IDLE_SECONDS)
            self._drain()
        finally:
            self._close()

    def _round(self, wait_seconds: float) -> None:
        """Take what was claimed, and make one step if any row is live."""
        live = self._engine.live_rows()
        claims = self._claim_io.take(0.0 if live else wait_seconds, self._engine.free_slots())
        self._start(claims)
        self._apply_verdicts()
        if self._engine.live_rows():
            self._step()
        if live != self._engine.live_rows():
            self._telemetry.slots()
            self._leases.nudge()

    def _start(self, claims: Sequence[Claim]) -> None:
        refused, admitted = [], []
        for claim in claims:
            if self._adopt(claim):
                continue
            run = Run(claim, time.time())
            self._telemetry.claimed(run)
            try:
                admitted.append(claim_conversion.row(run, self._settings.job_timeout_seconds))
                self._runs[claim.id] = run
            except InvalidRequest as error:
                refused.append(claim_conversion.refusal(run, error))
        self._engine.add(admitted)
        self._claim_io.deliver(refused)

    def _adopt(self, claim: Claim) -> bool:
        """A job came back to us while its row still runs (the lease was lost): the row goes on under the new claim."""
        run = self._runs.get(claim.id)
        if run is None:
            return False
        self._claim_io.forget([run.claim])
        run.claim = claim
        return True

    def _step(self) -> None:
        started = time.perf_counter()
        events = self._engine.step(time.time())
        self._telemetry.stepped(time.perf_counter() - started)
        now = time.time()
        endings = [ending for event in events if (ending := self._absorb(event, now))]
        self._telemetry.completed(sum(event.tokens for event in events))
        self._claim_io.deliver(endings)

    def _absorb(self, event: Event, now: float) -> Ending | None:
        run = self._runs.get(event.id)
        if run is None:
            return None
        if event.tokens:
            self._telemetry.tokens(run, event, now)
        if event.end is None:
            return None
        del self._runs[event.id]
        return claim_conversion.ending(run, event.end, self._model, now)

    def _apply_verdicts(self) -> None:
        while self._cancelled:
            self._engine.cancel([self._cancelled.popleft()])
        while self._lost:
            claim = self._lost.popleft()
            run = self._runs.get(claim.id)
            if run and run.claim.execution == claim.execution:
                log.warning("The lease of job %s was lost; its row is dropped.", claim.id, extra=claim.log_fields)
                del self._runs[claim.id]
                self._claim_io.forget([claim])
                self._engine.cancel([claim.id])

    def _drain(self) -> None:
        """Finish what runs within the drain time; give the rest back to the front of the queue."""
        self._draining = True
        log.info("draining: %d rows run", self._engine.live_rows())
        self._leases.nudge()
        self._give_back(self._claim_io.stop_claiming())
        deadline = time.monotonic() + self._settings.drain_seconds
        while self._claim_io.unfinished() and time.monotonic() < deadline:
            self._round(0.05)
        # A claim that was under way when claiming stopped may have come since, and found no slot.
        unfinished = [*(run.claim for run in self._runs.values()), *self._claim_io.stop_claiming()]
        self._claim_io.forget(unfinished)
        self._give_back(unfinished)

    def _give_back(self, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        try:
            released = self._store.release(claims)
            log.info("%d of %d jobs were put back", released, len(claims))
        except RedisUnavailable as error:
            log.warning("%d jobs come back when their leases end: %s", len(claims), error)

    def _close(self) -> None:
        self._listener.close()
        self._claim_io.close(CLOSE_SECONDS)
        self._leases.close()
        try:
            self._worker.disappear()
        except RedisUnavailable as error:
            log.warning("The registration ends by itself: %s", error)

    def _beat(self) -> None:
        busy = self._engine.live_rows()
        phase = "draining" if self._draining else "busy" if busy else "idle"
        self._worker.beat(phase, busy)

    def _on_stored(self, endings: Sequence[Ending], accepted: Sequence[bool]) -> None:
        self._telemetry.stored(endings, accepted)

    def _on_message(self, channel: str, text: str) -> None:
        if channel == self._keys.cancel_channel:
            self._cancelled.append(text)
        else:
            self._claim_io.wake()

    def _on_verdict(self, claim: Claim, verdict: str) -> None:
        if verdict == "lost":
            self._lost.append(claim)
        else:
            self._cancelled.append(claim.id)
