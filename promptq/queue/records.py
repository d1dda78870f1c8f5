"""What goes into the store and comes out of it: new jobs, claims, endings. Pure, but for the random id and a log."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from promptq.contract.call import NO_CONTEXT, JobContext, decode_call, encode_call
from promptq.contract.errors import EventsBehind, IdempotencyConflict, InvalidRequest, JobNotFound, QueueFull
from promptq.contract.job import Job, JobError, Result, Status, encode_traceback
from promptq.contract.logprobs import TokenLogprob, read_logprobs
from promptq.contract.queues import Priority, QueueName
from promptq.contract.request import JobRequest
from promptq.contract.settings import CommonSettings
from promptq.contract.shares import turn_cost

log = logging.getLogger(__name__)

SubmitOutcome = Literal["new", "join", "hit", "repeat"]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit.

    Attributes:
        model: what clients call the model that is to generate it.
        model_identity: what the settings say of the model; part of the cache key.
        keep_seconds: with an idempotency key or a client's own id, how long the job and the record are kept.
        request_id: of the HTTP request that made it, for the worker's log.
        owner: name of the API key that it belongs to; texts are shared only between jobs of one owner.
        weight: the owner's share of a queue beside other owners; 0: it waits in the order of arrival.
        response: where it is one of OpenAI's responses, what that shows of its request, as JSON.
        webhook: who is told of its end alone, as `OwnWebhook` encodes it, or an empty string.
    """

    id: str
    request: JobRequest
    model: str
    model_identity: str
    idempotency_key: str = ""
    keep_seconds: int | None = None
    traceparent: str = ""
    request_id: str = ""
    owner: str = ""
    weight: float = 1.0
    response: str = ""
    webhook: str = ""

    @classmethod
    def create(cls, request: JobRequest, model: str, model_identity: str, **fields: Any) -> NewJob:
        """A job under a fresh random id."""
        return cls(secrets.token_hex(16), request, model, model_identity, **fields)

    @property
    def queue(self) -> QueueName:
        """Where it is to wait."""
        return QueueName(self.model, self.request.priority)

    def cache_key(self, settings: CommonSettings) -> str:
        """The request's part of the key under which the text is shared, or an empty string: it is not shared."""
        shared = self.request.cache and self.request.is_deterministic and settings.cache_ttl_seconds
        identity = f"{self.model_identity}#{self.owner}" if self.owner else self.model_identity
        return self.request.cache_key(identity) if shared else ""

    def fingerprint(self) -> str:
        """Tells a repeat from a conflict; the same request of another owner is a conflict, or as another response,
        or with another webhook.

        A job under a random id and no key needs none: whoever names that id later means another job.
        """
        if not self.keep_seconds:
            return ""
        own = (hashlib.sha256(one.encode()).hexdigest() for one in (self.response, self.webhook) if one)
        return ":".join(filter(None, (self.request.fingerprint(), self.owner, *own)))

    def arguments(self, rq_queue: str, cache_key: str) -> list[Any]:
        """The submit script's values for one job."""
        own: dict[str, Any] = {"fingerprint": self.fingerprint(), "owner": self.owner, "response": self.response}
        own |= {"result_ttl": self.keep_seconds or "", "webhook": self.webhook}
        fields = list(chain.from_iterable((name, value) for name, value in own.items() if value != ""))
        return [
            self.id, rq_queue, _or_empty(self.request.ttl_seconds), cache_key, self.idempotency_key,
            _or_empty(self.keep_seconds), own["fingerprint"], turn_cost(self.weight) if self.owner else "",
            self._data(), len(fields), *fields,
        ]  # fmt: skip

    def _data(self) -> bytes:
        context = JobContext(
            timeout_seconds=self.request.timeout_seconds,
            traceparent=self.traceparent,
            request_id=self.request_id,
            seed=None if self.request.is_deterministic else secrets.randbits(63),
        )
        return encode_call(self.request.kwargs(), context)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit, and the job as it stands."""

    outcome: SubmitOutcome
    job: Job


Admission = Submitted | QueueFull | EventsBehind | IdempotencyConflict | JobNotFound
"""What became of one job of several."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Which jobs a worker can take.

    Attributes:
        busy: it runs something, so it gets no job that must run alone, and nothing that is behind such a job.
        resumes: the identity of its model, where its engine goes on with what such a model generated earlier; other
            jobs start over.
        above: only jobs that are more urgent than this; None: all.
        model: what it runs; empty: the default model.
    """

    busy: bool = False
    resumes: str = ""
    above: Priority | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One leased job.

    Attributes:
        execution: the fence: a later claim of the same job has another one.
        kwargs: what its call says of the request.
        context: what travels with it; see JobContext.
        attempts: runs begun, this one included.
        waited_seconds: since it was queued, earlier runs that lost their worker included; by the server's clock.
        rq_timeout_seconds: the limit that plain RQ wrote on it.
        refusal: why it cannot be run as it is, if so.
        alone: its worker was lost in every earlier attempt and this is the last: nothing may run beside it.
        moves: how often it was taken from a worker, that was lost or gave it back.
        progress: token ids that earlier runs generated, for an engine that goes on behind them.
        logprobs: of these tokens, where the request asks for them.
        watched: somebody reads its text as it comes.
        preemptions: how often it gave way to a more urgent job.
    """

    id: str
    queue: QueueName
    execution: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    context: JobContext = NO_CONTEXT
    attempts: int = 1
    waited_seconds: float = 0.0
    rq_timeout_seconds: float | None = None
    refusal: InvalidRequest | None = None
    alone: bool = False
    moves: int = 0
    progress: tuple[int, ...] = ()
    watched: bool = False
    preemptions: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()

    @classmethod
    def from_row(cls, row: Sequence[Any], default_model: str, max_attempts: int) -> Claim:
        """Read one row of the claim script's reply."""
        job_id, queue, execution, data, attempts, waited, timeout, unsupported, *rest = row
        moves, progress, watched, preemptions = rest
        kwargs, context, refusal = _read_call(data or b"", unsupported.decode())
        return cls(
            job_id.decode(), QueueName.parse(queue.decode(), default_model), execution.decode(), kwargs, context,
            attempts, max(0.0, float(waited)), _positive(timeout), refusal, 1 < attempts >= max_attempts, moves,
            tuple(int(token) for tokens in progress[::2] for token in tokens.split()), watched == 1,
            preemptions, read_logprobs(logprobs.decode() for logprobs in progress[1::2]),
        )  # fmt: skip

    @property
    def priority(self) -> Priority:
        """Of the queue that it came from."""
        return self.queue.priority

    @property
    def timeout_seconds(self) -> float | None:
        """The limit of one run, where the job has one of its own."""
        return self.context.timeout_seconds or self.rq_timeout_seconds

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about this job says beside its message."""
        return {"job_id": self.id, "request_id": self.context.request_id}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a claimed job ended: succeeded, failed or cancelled."""

    claim: Claim
    state: Status
    result: Result | None = None
    error: JobError | None = None

    def storable(self) -> Ending:
        """Itself, or a failure in its place where it cannot be sent: what an engine gives may be no text at all."""
        try:
            "".join(self.arguments("")).encode()
        except (ValueError, TypeError) as error:
            log.error("The ending of job %s cannot be stored: %s", self.claim.id, error)
            cause = JobError("engine_error", f"The engine's output cannot be stored: {type(error).__name__}.")
            return Ending(self.claim, Status.FAILED, error=cause)
        return self

    def arguments(self, rq_queue: str) -> list[str]:
        """The finish script's values for one job."""
        claim, value = self.claim, self.result.encode() if self.result else ""
        return [rq_queue, claim.id, claim.execution, self.state, value, *self._error_arguments(), self._tokens()]

    def _tokens(self) -> str:
        """What the run used, for the count by API key and day."""
        run = self.result
        return f"{run.prompt_tokens} {run.cached_tokens} {run.completion_tokens}" if run else ""

    def _error_arguments(self) -> list[str]:
        if self.state is not Status.FAILED:
            return ["", "", ""]
        error = self.error or JobError("failed", "The job failed.")
        return [error.type, error.message, encode_traceback(f"{error.type}: {error.message}")]


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one pass of the reaper did, in jobs."""

    requeued: int
    worker_lost: int
    cancelled: int
    expired: int


def _read_call(data: bytes, unsupported: str) -> tuple[dict[str, Any], JobContext, InvalidRequest | None]:
    """A job's call, or why it is refused. It must not raise, which would cost the other jobs their claim."""
    if unsupported:
        message = f"promptq runs no RQ callbacks, webhooks, repeats or rate limits; this job has {unsupported}."
        return {}, NO_CONTEXT, InvalidRequest(message)
    try:
        kwargs, context = decode_call(data)
    except InvalidRequest as error:
        return {}, NO_CONTEXT, error
    return kwargs, context, None


def _positive(raw: bytes) -> float | None:
    """A positive number, or None for whatever else the field holds."""
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value
