"""What the worker measures, written where Prometheus finds it, and the line that each ended job leaves in the log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Engine, Event, StepResult
from gpu_worker.engines.kv_memory import KvTokens
from gpu_worker.preemption import REASONS
from gpu_worker.run_traces import NO_RUN_TRACES, NoRunTraces
from promptq.contract.job import Status
from promptq.contract.metrics import WorkerMetrics
from promptq.contract.queues import PRIORITIES
from promptq.queue.store import Claim, Ending

log = logging.getLogger(__name__)

ENDS = (*(status.value for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)), "fenced")


class Telemetry:
    """Turns claims, steps and endings into metrics, and each ending into a line of the log. `now`: steady seconds.

    Args:
        traces: notes what happens to claims.
    """

    def __init__(self, metrics: WorkerMetrics, engine: Engine, traces: NoRunTraces = NO_RUN_TRACES) -> None:
        model = engine.info.model
        self._model = model
        self._metrics = metrics
        self._engine = engine
        self._traces = traces
        self._inter_token = metrics.inter_token_latency.labels(model)
        self._first_token = metrics.time_to_first_token.labels(model)
        self._batch_size = metrics.batch_size.labels(model)
        self._decode = metrics.decode_step.labels(model)
        self._prefill = metrics.prefill.labels(model)
        self._finished = {status: metrics.finished.labels(model, status) for status in ENDS}
        self._resumed = metrics.resumed.labels(model)
        self._reused = metrics.reused.labels(model)
        self._too_large = metrics.too_large.labels(model)
        self._drafts = {outcome: metrics.drafts.labels(model, outcome) for outcome in ("right", "wrong")}
        self._queue_wait = {name: metrics.queue_wait.labels(name, model) for name in PRIORITIES}
        self._job_duration = {name: metrics.job_duration.labels(name, model) for name in PRIORITIES}
        self._tokens = {kind: metrics.tokens.labels(model, kind) for kind in ("prompt", "completion")}
        self._preemptions = {reason: metrics.preemptions.labels(model, reason) for reason in REASONS}
        self.slots()

    def slots(self) -> None:
        """Busy and free slots as they are now."""
        busy = self._engine.live_rows()
        self._metrics.slots.labels("busy").set(busy)
        self._metrics.slots.labels("free").set(self._engine.free_slots())

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Jobs left the queue."""
        self._traces.claimed(claims)

    def started(self, run: Run) -> None:
        """One of them became a row."""
        self._queue_wait[run.claim.priority].observe(run.claim.waited_seconds)
        self._resumed.inc(run.resumed)
        self._traces.started(run)

    def let_go(self, claims: Sequence[Claim]) -> None:
        """They have no ending here."""
        self._traces.let_go(claims)

    def stepped(self, seconds: float, result: StepResult) -> None:
        """The engine made a step that took this long."""
        stats = result.stats
        self._metrics.busy_seconds.inc(seconds)
        if stats.rows:
            self._batch_size.observe(stats.rows)
            self._decode.observe(stats.decode_seconds)
        self._drafts["right"].inc(stats.right_drafts)
        self._drafts["wrong"].inc(stats.wrong_drafts)
        self._reused.inc(stats.reused_tokens)
        self._memory(stats.kv_tokens)
        self._too_large.inc(stats.too_large)
        self._tokens["completion"].inc(sum(event.tokens for event in result.events))
        self._tokens["prompt"].inc(stats.prefill_tokens)
        if stats.prefill_tokens and stats.prefill_seconds:
            self._prefill.observe(stats.prefill_seconds)

    def _memory(self, tokens: KvTokens) -> None:
        if tokens.capacity:
            for state, count in asdict(tokens).items():
                self._metrics.kv_tokens.labels(self._model, state).set(count)

    def tokens(self, run: Run, event: Event, now: float) -> None:
        """A row got tokens; keeps the times of its first and last one. `stepped` counts them."""
        if run.first_token_at is None or run.last_token_at is None:
            run.first_token_at = now
            self._first_token.observe(now - run.claimed_at)
        else:
            self._inter_token.observe((now - run.last_token_at) / event.tokens)
        run.last_token_at = now

    def preempted(self, reasons: Sequence[str]) -> None:
        """Running rows gave way."""
        for reason in reasons:
            self._preemptions[reason].inc()

    def trouble(self, trouble: str) -> None:
        """The engine's server takes no rows now, for this reason; empty: it does again."""
        self.slots()
        self._metrics.upstream_open.set(bool(trouble))

    def subscription_lost(self) -> None:
        """The subscription broke, fell silent or could not be made."""
        self._metrics.subscription_losses.inc()

    def stored(self, endings: Sequence[Ending], accepted: Sequence[bool]) -> None:
        """Endings were written or, where the claim was lost, refused."""
        self._traces.stored(endings, accepted)
        rows = zip(endings, accepted, strict=True)
        statuses = [ending.state.value if written else "fenced" for ending, written in rows]
        for status, count in Counter(statuses).items():
            self._finished[status].inc(count)
        for ending, status in zip(endings, statuses, strict=True):
            _log_end(ending, status)
            if status == Status.SUCCEEDED:
                self._job_duration[ending.claim.priority].observe(_seconds(ending))


def _log_end(ending: Ending, status: str) -> None:
    """Never the text: prompts and answers are nobody's business in a log."""
    level = logging.WARNING if status == "fenced" else logging.INFO
    if not log.isEnabledFor(level):
        return
    claim, result = ending.claim, ending.result
    tokens = result.completion_tokens if result else 0
    seconds = round(_seconds(ending), 3)
    numbers = {"status": status, "tokens": tokens, "seconds": seconds, "attempts": claim.attempts}
    reason = f" ({ending.error.type})" if ending.error else ""
    log.log(
        level, "ended: %s%s, %d tokens, %.3f s after its submit", status, reason, tokens, seconds,
        extra=claim.log_fields | numbers,
    )  # fmt: skip


def _seconds(ending: Ending) -> float:
    """From the submit to the end: in the queue by the server's clock, then by this process's own."""
    return ending.claim.waited_seconds + (ending.result.run_seconds if ending.result else 0.0)
