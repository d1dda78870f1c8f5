"""One small tree of errors. Each carries data; only the API turns one into HTTP."""

from __future__ import annotations

from collections.abc import Sequence


class PromptqError(Exception):
    """Root of every error that promptq raises on purpose.

    Attributes:
        type: a stable snake_case name that clients may match on.
        param: the request field at fault, if there is one.
    """

    type = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class SettingsError(PromptqError):
    """A setting is unknown, malformed or impossible. The message is one line."""

    type = "invalid_settings"


class InvalidRequest(PromptqError):
    """The request cannot be carried out as written."""

    type = "invalid_request"


class InvalidJson(PromptqError):
    """The body is not JSON."""

    type = "invalid_json"


class ModelNotFound(PromptqError):
    """No such model is served.

    Args:
        known: those that are.
    """

    type = "model_not_found"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(f"The model {model!r} does not exist. Served: {', '.join(known)}.", param="model")


class WorkerNotFound(PromptqError):
    """No such worker is registered."""

    type = "worker_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"No worker named {name[:100]!r} is registered.", param="name")


class JobNotFound(PromptqError):
    """No job with that id exists, or its lifetime has ended."""

    type = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"No job with id {job_id!r}; it never existed or its lifetime has ended.", param="id")
        self.job_id = job_id


class JobAlreadyTerminal(PromptqError):
    """The job has ended, so it cannot change any more."""

    type = "job_already_terminal"

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} has already ended as {status}.", param="id")
        self.job_id = job_id
        self.status = status


class JobNotFailed(PromptqError):
    """Only a failed job can be tried again."""

    type = "job_not_failed"

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"Job {job_id} is {status}; only a failed job can be tried again.", param="id")
        self.job_id = job_id
        self.status = status


class IdempotencyConflict(PromptqError):
    """The same id or Idempotency-Key came with a different request."""

    type = "idempotency_conflict"


class QueueFull(PromptqError):
    """The queue is at its bound.

    Attributes:
        depth: jobs queued when the submit was refused.
        retry_after_seconds: when room is expected, from the recent drain rate.
    """

    type = "queue_full"

    def __init__(self, depth: int, retry_after_seconds: int) -> None:
        super().__init__(f"{depth} jobs are queued, which is the limit; retry in {retry_after_seconds} s.")
        self.depth = depth
        self.retry_after_seconds = retry_after_seconds


class EventsBehind(PromptqError):
    """Too many ends wait for a dispatcher that tells webhooks of them; a job that is to be told of is refused."""

    type = "webhooks_behind"

    def __init__(self) -> None:
        super().__init__("Too many events wait to be sent to webhooks: no dispatcher takes them, or it is behind.")


class RedisUnavailable(PromptqError):
    """Redis does not answer, or refuses to serve. Nothing was acknowledged."""

    type = "redis_unavailable"

    def __init__(self, detail: str, problem: str = "does not answer") -> None:
        super().__init__(f"Redis {problem}: {detail}")


class EngineError(PromptqError):
    """The engine cannot be built or used: a missing model, a wrong device, too little memory."""

    type = "engine_error"


class EngineBroken(EngineError):
    """The engine computes nothing any more in this process, whatever it is asked: no row is to blame."""


class WorkerReplaced(PromptqError):
    """Another worker has taken this one's name over, because it was silent for longer than a lease."""

    type = "worker_replaced"
