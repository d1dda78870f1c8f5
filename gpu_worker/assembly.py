"""Puts a worker together, runs it, and takes it apart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from gpu_worker.batching import Batching
from gpu_worker.claim_io import ClaimIO
from gpu_worker.engines.base import Engine
from gpu_worker.leases import LeaseKeeper
from gpu_worker.preemption import NO_PREEMPTION, Preemption
from gpu_worker.presence import Presence
from gpu_worker.progress import ProgressKeeper
from gpu_worker.registration import WorkerRegistration
from gpu_worker.telemetry import Telemetry
from gpu_worker.verdicts import Verdicts
from gpu_worker.worker_loop import LoopLimits, LoopParts, WorkerLoop
from promptq.contract.errors import RedisUnavailable, WorkerReplaced
from promptq.contract.queues import QueueName
from promptq.contract.settings import WorkerSettings
from promptq.queue.listener import Listener
from promptq.queue.store import JobStore, Terms
from promptq.queue.waking import pass_on
from promptq.runtime.lifecycle import Stop

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
LISTEN_SECONDS = 1.0


class Worker:
    """One engine, registered and working."""

    def __init__(
        self,
        store: JobStore,
        engine: Engine,
        registration: WorkerRegistration,
        telemetry: Telemetry,
        settings: WorkerSettings,
    ) -> None:
        self._store = store
        self._engine = engine
        self._telemetry = telemetry
        self._registration = registration
        self._holds_nothing = True
        self._cancel_channel = settings.keys.cancel_channel
        self._presence = presence = Presence(registration, engine)
        verdicts = Verdicts()
        batching = Batching(settings.batching, engine.info.slots, settings.max_wait_ms / 1000)
        resumes = engine.info.identity if engine.info.capabilities.resume else ""
        terms = Terms(resumes=resumes, model=settings.model_name)
        self._default_model, self._model = settings.default_model, settings.model_name
        self._progress = progress = ProgressKeeper(store, engine.info.identity, settings.checkpoint_seconds)
        preemption = _preemption(settings, engine)
        self._claim_io = ClaimIO(store, registration.name, batching, telemetry, terms, preemption, progress.give_up)
        self._leases = LeaseKeeper(store, self._claim_io, presence.beat, verdicts.add)
        self._watch_channel, self._drain_channel = settings.keys.watch_channel, settings.keys.drain_channel
        self._own_channel = settings.keys.wake_channel_of(registration.name)
        wakes = (settings.keys.wake_channel, self._own_channel)
        channels = (*wakes, self._cancel_channel, self._watch_channel, self._drain_channel)
        self._listener = Listener(settings.redis_url, channels, self._on_message, self._look_again, self._note_loss)
        parts = LoopParts(self._claim_io, self._leases, presence, verdicts, telemetry, self._progress)
        limits = LoopLimits(settings.job_timeout_seconds, settings.drain_seconds, preemption)
        self._loop = WorkerLoop(engine, parts, limits)

    def run(self, stop: Stop) -> None:
        """Register, work until the stop is requested, drain, and unregister.

        Raises:
            SettingsError: a live worker has this name.
            EngineBroken: its jobs are put back; those that ran have had an attempt.
            WorkerReplaced: another worker has this name now.
        """
        if self._registration.appear(lambda: stop.requested):
            self._leave(self._take_back)
        # Of what is claimed before it listens, it hears neither cancels nor readers.
        self._listener.start()
        self._listener.connected.wait(LISTEN_SECONDS)
        for thread in (self._claim_io, self._leases, self._progress):
            thread.start()
        log.info("ready: %s serves %s", self._registration.name, self._engine.info)
        try:
            self._loop.run(stop)
        except Exception:
            # Broken, or at fault itself. As if the process had died: whatever ran may be what broke it.
            self._holds_nothing = False
            raise
        finally:
            self._close()
        if self._presence.is_replaced:
            raise WorkerReplaced(f"another worker has the name {self._registration.name!r} now: this one was silent")

    def _close(self) -> None:
        self._listener.close()
        self._progress.close()
        self._claim_io.close(CLOSE_SECONDS)
        # A claim may have been under way when claiming stopped.
        self._claim_io.give_back(self._claim_io.stop_claiming())
        self._leases.close()
        try:
            self._engine.close()
        except Exception:
            log.exception("The engine did not close; its memory goes with the process.")
        if not self._holds_nothing:
            self._leave(self._take_back)
        self._leave(self._registration.disappear)

    def _take_back(self) -> None:
        log.info("Put back what ran: %s", self._store.take_back(self._registration.name))

    def _leave(self, act: Callable[[], object]) -> None:
        try:
            act()
        except RedisUnavailable as error:
            log.warning("What could not be told now ends, or is found, by itself: %s", error)

    def _on_message(self, channel: str, text: str) -> None:
        """A message says only that there is something to see: whether a job is cancelled, its hash says."""
        if channel == self._watch_channel:
            self._progress.watch(text)
        elif channel == self._drain_channel:
            if text == self._registration.name:
                self._leases.nudge()  # the heartbeat hears what the worker's hash says
        elif channel != self._cancel_channel:
            self._wake(QueueName.parse(text, self._default_model) if text else None, channel == self._own_channel)
        elif self._claim_io.holds(text):
            self._leases.renew_now()

    def _wake(self, queue: QueueName | None, is_alone: bool) -> None:
        """`is_alone`: no other worker was told."""
        if queue and queue.model != self._model:
            return
        has_room = self._claim_io.wake(queue.priority if queue else None)
        if queue and is_alone and not has_room:
            self._leave(partial(pass_on, self._store, queue))

    def _look_again(self) -> None:
        """Messages may have been missed: of jobs that were queued, of cancels, and of readers."""
        self._claim_io.wake()
        self._leases.renew_now()
        self._progress.look_again(claim.id for claim in self._claim_io.held())

    def _note_loss(self) -> None:
        self._telemetry.subscription_lost()
        self._store.drop_idle()


def _preemption(settings: WorkerSettings, engine: Engine) -> Preemption:
    """Only an engine that gives rows up, and goes on with them later, lets them give way."""
    able = engine.info.capabilities.preempt and engine.info.capabilities.resume
    return Preemption(settings.preemption, settings.max_preemptions) if able else NO_PREEMPTION
