"""A worker's part of its jobs' traces: when a run waited, was claimed, prefilled, decoded and stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import EngineInfo
from promptq.contract.job import Status
from promptq.queue.store import Claim, Ending
from promptq.runtime.traces import Attributes, Phase, Traces, Trail


class NoRunTraces:
    """Where jobs are not traced: nothing is noted."""

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Claims have come."""

    def started(self, run: Run) -> None:
        """A claim became a row."""

    def stored(self, endings: Sequence[Ending], accepted: Sequence[bool]) -> None:
        """Endings were written or, where the claim was lost, refused."""

    def let_go(self, claims: Sequence[Claim]) -> None:
        """Claims are no longer ours, and had no end here."""


NO_RUN_TRACES = NoRunTraces()


class RunTraces(NoRunTraces):
    """Notes times while jobs run, and makes spans when they are over: nothing is sent from the engine's thread.

    Args:
        attributes: of every run, such as the worker's name.
        steady: monotonic seconds, as a run's own times are.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        traces: Traces,
        attributes: Attributes,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._traces = traces
        self._attributes = attributes
        self._steady, self._wall = steady, wall
        self._arrived: dict[str, float] = {}
        self._runs: dict[str, Run] = {}

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Claims have come."""
        self._arrived.update((claim.execution, self._steady()) for claim in claims)

    def started(self, run: Run) -> None:
        """A claim became a row."""
        self._runs[run.claim.execution] = run

    def stored(self, endings: Sequence[Ending], accepted: Sequence[bool]) -> None:
        """Endings were written or, where the claim was lost, refused."""
        for ending, is_written in zip(endings, accepted, strict=True):
            error = ending.error.type if ending.error else ""
            end = ending.state.value if is_written else "fenced"
            self._record(ending.claim, end, error, _usage(ending))

    def let_go(self, claims: Sequence[Claim]) -> None:
        """Claims are no longer ours, and had no end here."""
        for claim in claims:
            self._record(claim, "let go", "", {})

    def _record(self, claim: Claim, end: str, error: str, usage: Attributes) -> None:
        arrived, run = self._arrived.pop(claim.execution, None), self._runs.pop(claim.execution, None)
        if arrived is None:
            return
        now = self._steady()
        phases = phases_of(claim, arrived, run, now, is_ended=end != "let go")
        ahead = self._wall() - now
        attributes = {
            **self._attributes, **usage, "promptq.job.id": claim.id, "promptq.priority": claim.priority,
            "promptq.attempt": claim.attempts, "promptq.moves": claim.moves, "promptq.end": end,
        }  # fmt: skip
        spans = [Phase(phase.name, phase.begun + ahead, phase.ended + ahead) for phase in phases]
        self._traces.record(Trail(claim.context.traceparent, spans, attributes, error))


def run_traces(traces: Traces, engine: EngineInfo, worker: str) -> NoRunTraces:
    """What notes the runs of this engine, where they are traced."""
    own = {"gen_ai.request.model": engine.model, "promptq.worker": worker}
    return RunTraces(traces, own) if traces.is_on else NO_RUN_TRACES


def phases_of(claim: Claim, arrived: float, run: Run | None, now: float, is_ended: bool) -> list[Phase]:
    """The parts of a run, in the clock of its times.

    Args:
        arrived: when the claim was here.
        run: the row that it became, if it did.
        now: when its ending was stored, or it was let go.
        is_ended: whether it has an ending; without one it decoded until now.
    """
    phases = [Phase("wait", arrived - claim.waited_seconds, arrived)]
    if run is None:
        return [*phases, Phase("claim", arrived, now)]
    started = max(arrived, run.claimed_at)
    phases.append(Phase("claim", arrived, started))
    if run.first_token_at is None or run.last_token_at is None:
        return [*phases, Phase("prefill", started, now)]
    phases.append(Phase("prefill", started, run.first_token_at))
    if not is_ended:
        return [*phases, Phase("decode", run.first_token_at, now)]
    return [*phases, Phase("decode", run.first_token_at, run.last_token_at), Phase("store", run.last_token_at, now)]


def _usage(ending: Ending) -> Attributes:
    if not (result := ending.result):
        return {}
    return {
        "gen_ai.usage.input_tokens": result.prompt_tokens,
        "gen_ai.usage.output_tokens": result.completion_tokens,
        "gen_ai.response.finish_reasons": (result.finish_reason,),
        "promptq.resumed_tokens": result.resumed_tokens,
        "promptq.cached_tokens": result.cached_tokens,
        "promptq.batch_size": result.batch_size,
        "promptq.cancelled": ending.state is Status.CANCELLED,
    }
