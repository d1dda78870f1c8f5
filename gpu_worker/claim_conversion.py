"""Between the queue's terms and the engine's: a claim becomes a row, a finished row an ending. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydantic import ValidationError

from gpu_worker.engines.base import EngineInfo, Event, FinishReason, Row, RowEnd
from gpu_worker.preemption import RunningRow
from promptq.contract import capabilities
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import JobError, Result, Status
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.request import GenerateRequest
from promptq.queue.store import Claim, Ending


@dataclass(slots=True)
class Run:
    """One claimed job while it is here. Times are monotonic seconds.

    Attributes:
        resumed: tokens that earlier runs had generated when its row began here.
        generated: tokens that the row has, those included.
        logprobs: of all these tokens, where the request asks for them.
    """

    claim: Claim
    claimed_at: float
    resumed: int = 0
    generated: int = field(init=False)
    logprobs: list[TokenLogprob] = field(init=False)
    first_token_at: float | None = None
    last_token_at: float | None = None

    def __post_init__(self) -> None:
        self.generated = self.resumed
        self.logprobs = list(self.claim.logprobs)

    def take(self, event: Event) -> None:
        """Count what the row got."""
        self.generated += event.tokens
        self.logprobs.extend(event.logprobs)

    def as_row(self) -> RunningRow:
        """Itself, as it is compared with jobs that want its slot."""
        claim = self.claim
        return RunningRow(claim.id, claim.priority, self.generated, claim.preemptions, claim.alone)


def row(run: Run, timeout_seconds: float, engine: EngineInfo) -> Row:
    """The engine's view of a claim.

    Args:
        timeout_seconds: the limit of one run, where the job names none.
        engine: that is to run it.

    Raises:
        InvalidRequest: the job is not one that we run, or asks for what the engine cannot do; the message says why.
    """
    claim = run.claim
    if claim.refusal:
        raise claim.refusal
    request = _request(claim)
    capabilities.check(request, engine.capabilities.names, engine.model)
    limit = claim.timeout_seconds or timeout_seconds
    return Row(
        claim.id,
        request,
        run.claimed_at + limit,
        claim.priority,
        run.claimed_at - claim.waited_seconds,
        claim.progress,
    )


def refusal(run: Run, error: InvalidRequest) -> Ending:
    """The ending of a job that is not run at all."""
    return Ending(run.claim, Status.FAILED, error=JobError(error.type, error.message))


def ending(run: Run, finished: RowEnd, model: str, now: float) -> Ending:
    """The ending of a row that the engine finished."""
    result = _result(run, finished, model, now)
    match finished.reason:
        case FinishReason.CANCELLED:
            return Ending(run.claim, Status.CANCELLED, result)
        case FinishReason.TIMEOUT:
            message = f"The run took longer than its time limit; {finished.completion_tokens} tokens are kept."
            return Ending(run.claim, Status.FAILED, result, JobError("timeout", message))
        case FinishReason.ERROR:
            return Ending(run.claim, Status.FAILED, error=JobError(*(finished.error or ("engine_error", "unknown"))))
        case _:
            return Ending(run.claim, Status.SUCCEEDED, result)


def _request(claim: Claim) -> GenerateRequest:
    try:
        request = GenerateRequest.model_validate(claim.kwargs)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "prompt"
        raise InvalidRequest(f"{field}: {first['msg']}", param=field) from None
    return request if request.is_deterministic else request.model_copy(update={"seed": _seed(claim)})


def _seed(claim: Claim) -> int:
    """The job's own, so that every run of it draws the same; of a job that plain RQ made, by its id."""
    if claim.context.seed is not None:
        return claim.context.seed
    return int.from_bytes(hashlib.sha256(claim.id.encode()).digest()[:8]) >> 1


def _result(run: Run, finished: RowEnd, model: str, now: float) -> Result:
    first = run.first_token_at
    return Result(
        text=finished.text,
        finish_reason=finished.reason,
        model=model,
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        cached_tokens=finished.reused_tokens,
        queue_seconds=run.claim.waited_seconds,
        time_to_first_token_seconds=None if first is None else round(max(0.0, first - run.claimed_at), 6),
        run_seconds=max(0.0, now - run.claimed_at),
        batch_size=finished.batch_size,
        resumed_tokens=run.resumed,
        moves=run.claim.moves,
        logprobs=run.logprobs,
        embedding=finished.embedding,
    )
