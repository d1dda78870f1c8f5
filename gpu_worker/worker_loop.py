"""The worker's loop: claim → engine → finish. One thread owns the engine; Redis is on others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpu_worker import claim_conversion
from gpu_worker.claim_conversion import Run
from gpu_worker.claim_io import ClaimIO
from gpu_worker.engines.base import Engine, Event, RowEnd, StepResult, trouble_of
from gpu_worker.engines.kv_memory import crowded_out_of
from gpu_worker.event_sink import EventSink
from gpu_worker.leases import LeaseKeeper
from gpu_worker.preemption import NO_PREEMPTION, Preemption
from gpu_worker.presence import Presence
from gpu_worker.returns import Returned
from gpu_worker.telemetry import Telemetry
from gpu_worker.verdicts import Verdicts
from promptq.contract.errors import EngineBroken, InvalidRequest
from promptq.contract.queues import Priority
from promptq.queue.store import Claim, Ending
from promptq.runtime import failpoints
from promptq.runtime.lifecycle import Stop

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How often an idle worker looks at its stop flag. Work wakes it at once."""
DRAIN_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What the loop works with, each on its own thread or on the loop's.

    Attributes:
        sink: receives the text of running rows.
    """

    claim_io: ClaimIO
    leases: LeaseKeeper
    presence: Presence
    verdicts: Verdicts
    telemetry: Telemetry
    sink: EventSink


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """How long rows run.

    Attributes:
        job_timeout: one run's limit in seconds, where the job names none.
        drain: after a stop, seconds for running rows before they are put back; only for engines that cannot resume.
        preemption: when they give way to more urgent ones.
    """

    job_timeout: float
    drain: float
    preemption: Preemption = NO_PREEMPTION


class WorkerLoop:
    """Runs one engine against the queue until the stop is requested, then drains.

    Args:
        clock: steady seconds.
    """

    def __init__(
        self, engine: Engine, parts: LoopParts, limits: LoopLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._parts = parts
        self._limits = limits
        self._clock = clock
        self._model = engine.info.model
        self._runs: dict[str, Run] = {}
        self._trouble = ""
        # Before the first claim is made.
        self._heed_capacity()

    def run(self, stop: Stop) -> None:
        """Work until `stop` is requested, somebody asks for the drain, or another has this worker's name; then finish
        or give back what is held.

        Raises:
            EngineBroken: what was not started is given back, and what runs goes with the worker.
        """
        try:
            while not (stop.requested or self._parts.presence.is_over):
                self.round(IDLE_SECONDS)
            self.drain()
        except EngineBroken:
            self._parts.claim_io.give_back(self._parts.claim_io.stop_claiming())
            raise

    def round(self, wait_seconds: float) -> None:
        """Take what was claimed, waiting this long for the first while idle, and make one step if any row is live."""
        live = self._engine.live_rows()
        self._heed_capacity()
        self._make_room()
        self._start(self._parts.claim_io.take(self._engine.free_slots(), 0.0 if live else wait_seconds))
        self._apply_verdicts()
        if self._engine.live_rows():
            self._step()
        self._note_trouble()
        if live != self._engine.live_rows():
            self._parts.telemetry.slots()
            self._parts.leases.nudge()

    def drain(self) -> None:
        """Give everything back to the front of the queue: what runs with its progress, for another worker to go on.

        An engine that could not go on finishes what it can within the drain time.
        """
        claim_io = self._parts.claim_io
        self._parts.presence.draining = True
        self._parts.leases.nudge()
        log.info("draining: %d rows run", self._engine.live_rows())
        claim_io.give_back(claim_io.stop_claiming())
        if self._engine.info.capabilities.resume:
            self._keep_progress()
        else:
            self._finish_rows(self._clock() + self._limits.drain)
        # A claim that was under way when claiming stopped may have come since, and found no slot.
        claim_io.give_back([*(run.claim for run in self._runs.values()), *claim_io.stop_claiming()])

    def _keep_progress(self) -> None:
        try:
            self._parts.sink.keep()
        except Exception as error:
            log.warning("The newest tokens of %d rows are not kept: %s", len(self._runs), error)

    def _finish_rows(self, deadline: float) -> None:
        while self._parts.claim_io.unfinished() and self._clock() < deadline:
            self.round(DRAIN_POLL_SECONDS)

    def _make_room(self) -> None:
        """Let running rows give way to more urgent jobs: those without a slot, and those whose rows wait for memory."""
        waiting, free = self._parts.claim_io.waiting(), self._engine.free_slots()
        if len(waiting) > free:
            self._preempt(waiting, self._runs.values(), free)
        if crowded := self._runs.keys() & set(crowded_out_of(self._engine)):
            others = [run for job_id, run in self._runs.items() if job_id not in crowded]
            self._preempt([self._runs[job_id].claim.priority for job_id in crowded], others, 0)

    def _preempt(self, waiting: Sequence[Priority], runs: Iterable[Run], free: int) -> None:
        victims = self._limits.preemption.victims(waiting, [run.as_row() for run in runs], free)
        reasons = {victim.id: victim.reason for victim in victims}
        if not reasons:
            return
        gone = self._engine.preempt(reasons)
        self._parts.claim_io.put_back([Returned(self._runs.pop(job_id).claim, "preempted") for job_id in gone])
        self._parts.telemetry.preempted([reasons[job_id] for job_id in gone])

    def _start(self, claims: Sequence[Claim]) -> None:
        refused, rows = [], []
        for claim in claims:
            if self._adopt(claim):
                continue
            run = Run(claim, self._clock(), len(claim.progress))
            self._parts.telemetry.started(run)
            try:
                rows.append(claim_conversion.row(run, self._limits.job_timeout, self._engine.info))
                self._runs[claim.id] = run
            except InvalidRequest as error:
                refused.append(claim_conversion.refusal(run, error))
        self._engine.add(rows)
        if rows:
            failpoints.hit("worker.started")
        self._parts.claim_io.deliver(refused)

    def _adopt(self, claim: Claim) -> bool:
        """A job came back to us while its row still runs (the lease was lost): the row goes on under the new claim."""
        run = self._runs.get(claim.id)
        if run is None:
            return False
        self._parts.claim_io.forget([run.claim])
        run.claim = claim
        return True

    def _step(self) -> None:
        started = self._clock()
        result = self._engine.step(started)
        now = self._clock()
        if result.events:
            failpoints.hit("worker.stepped")
        self._parts.telemetry.stepped(now - started, result)
        endings = [ending for event in result.events if (ending := self._absorb(event, now))]
        self._parts.claim_io.deliver(endings)
        if result.handed_back or result.lost:
            self._give_up(result)

    def _give_up(self, result: StepResult) -> None:
        """Put back the jobs of rows that the engine let go, once it is known how many may be claimed instead."""
        self._heed_capacity()
        runs = [(self._runs.pop(job_id, None), "") for job_id in result.handed_back]
        runs += [(self._runs.pop(row.id, None), row.cause) for row in result.lost]
        given_up = [(run, cause) for run, cause in runs if run]
        for run, _ in given_up:
            self._parts.sink.dropped(run)
        self._parts.claim_io.put_back(
            [Returned(run.claim, "lost" if cause else "upstream", cause) for run, cause in given_up]
        )

    def _heed_capacity(self) -> None:
        """An engine may take fewer rows than it has slots for: what it does not take is left to others."""
        self._parts.claim_io.limit(self._engine.live_rows() + self._engine.free_slots())

    def _note_trouble(self) -> None:
        if (trouble := trouble_of(self._engine)) != self._trouble:
            self._trouble = trouble
            log.warning("trouble: %s", trouble) if trouble else log.info("the trouble is over")
            self._parts.telemetry.trouble(trouble)
            self._parts.leases.nudge()

    def _absorb(self, event: Event, now: float) -> Ending | None:
        """Pass an event on. Returns the job's ending, if it was the row's last one."""
        run = self._runs.get(event.id)
        if run is None:
            return None
        if event.tokens:
            self._parts.telemetry.tokens(run, event, now)
        self._tell_sink(run, event)
        run.take(event)
        return self._end(run, event.end, now) if event.end else None

    def _end(self, run: Run, end: RowEnd, now: float) -> Ending:
        del self._runs[run.claim.id]
        return claim_conversion.ending(run, end, self._model, now)

    def _tell_sink(self, run: Run, event: Event) -> None:
        """Whoever receives the text must not be able to end the loop, nor the row."""
        try:
            self._parts.sink.took(run, event)
        except Exception:
            log.exception("The text of job %s was not taken.", run.claim.id, extra=run.claim.log_fields)

    def _apply_verdicts(self) -> None:
        cancelled = filter(self._runs_under, self._parts.verdicts.take_cancelled())
        self._engine.cancel([claim.id for claim in cancelled])
        for claim in self._parts.verdicts.take_lost():
            if self._runs_under(claim):
                log.warning("The lease of job %s was lost; its row is dropped.", claim.id, extra=claim.log_fields)
                self._parts.sink.dropped(self._runs.pop(claim.id))
                self._parts.claim_io.forget([claim])
                self._engine.cancel([claim.id])

    def _runs_under(self, claim: Claim) -> bool:
        """Whether a job runs, and under this very claim."""
        run = self._runs.get(claim.id)
        return run is not None and run.claim.execution == claim.execution
