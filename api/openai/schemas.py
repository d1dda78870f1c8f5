"""OpenAI's forms of answers, as the OpenAPI page shows them."""

from __future__ import annotations

from typing import Any, Literal

from flask_openapi3.models.data_type import DataType
from flask_openapi3.models.media_type import MediaType
from flask_openapi3.models.schema import Schema
from pydantic import BaseModel, ConfigDict, Field

from api.schemas import AnyError
from promptq.contract.tools import ToolCall

_EVENT = Schema(
    type=DataType.OBJECT,
    required=["data"],
    properties={
        "event": Schema(type=DataType.STRING),
        "data": Schema(type=DataType.STRING, description="JSON; of completions the last one is `[DONE]`."),
    },
)
_OR_EVENTS: ConfigDict = {  # type: ignore[typeddict-unknown-key]  # flask_openapi3's own
    "openapi_extra": {"content": {"text/event-stream": MediaType(schema=_EVENT)}}
}
"""Of an answer that may be asked for as a stream."""


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None = Field(description="Stable name that clients may match on.")


class OpenAIError(AnyError):
    """Any error of OpenAI's endpoints."""

    error: OpenAIErrorDetail


ModelState = Literal["ready", "starting", "waiting", "trouble", "unknown"]


class Model(BaseModel):
    """What `model` may be."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "promptq"
    state: ModelState = Field(
        description="Ours. ready: workers run it; waiting: a request starts the first; trouble: none starts."
    )


class ModelList(BaseModel):
    """All that are served."""

    object: Literal["list"] = "list"
    data: list[Model]


class PromptTokensDetails(BaseModel):
    """What became of the prompt."""

    cached_tokens: int


class CompletionUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AssistantMessage(BaseModel):
    """The turn that was generated."""

    role: Literal["assistant"]
    content: str | None = Field(description="null where there are only calls.")
    refusal: None
    tool_calls: list[ToolCall] = Field(default_factory=list)


class TokenLogprob(BaseModel):
    """How likely a token was."""

    token: str
    logprob: float
    bytes: list[int] = Field(description="Of the token, which may be a part of a character.")


class ChosenLogprob(TokenLogprob):
    """Of a token of the text, and of the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of all tokens of the text."""

    content: list[ChosenLogprob]
    refusal: None


class ChatChoice(BaseModel):
    """The one text."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class _Whole(BaseModel):
    id: str
    created: int
    model: str
    usage: CompletionUsage


class ChatCompletionObject(_Whole):
    """A chat's next turn."""

    model_config = _OR_EVENTS

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextLogprobs(BaseModel):
    """Of all tokens of the text, side by side."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="Characters of the text before each token.")


class TextChoice(BaseModel):
    """The one text."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class CompletionObject(_Whole):
    """A text's continuation."""

    model_config = _OR_EVENTS

    object: Literal["text_completion"]
    choices: list[TextChoice]


class Embedding(BaseModel):
    """Of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="In the `encoding_format` that was asked for.")


class EmbeddingUsage(BaseModel):
    """Token counts, over all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """All that were asked for, in the order of their inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ResponseObject(BaseModel):
    """A response; `openai` has its whole form."""

    model_config = _OR_EVENTS | ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    tool_choice: str | dict[str, Any]
    tools: list[Any]


class DeletedResponse(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["response.deleted"]
    deleted: Literal[True]
