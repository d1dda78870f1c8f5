"""What may be asked of promptq: the one schema for the REST body and for RQ's kwargs."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError, to_json

from promptq.contract.logprobs import MAX_TOP
from promptq.contract.queues import Priority
from promptq.contract.strict import Strict
from promptq.contract.tools import Tool, ToolCall, ToolChoice, Tools, absent, check_choice

CACHE_SCHEMA_VERSION = 5
MAX_SEED = 2**63 - 1


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL bytes")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _is_generate(task: str) -> bool:
    """Left out, as `_is_empty`."""
    return task == "generate"


def _is_empty(value: str) -> bool:
    """Left out, so that requests without it stay the same as they were before there was such a field."""
    return not value


_NO_NUL: dict[str, Any] = {"pattern": "^[^\\u0000]*$"}
Text = Annotated[str, Field(min_length=1, json_schema_extra=_NO_NUL), AfterValidator(_without_nul)]
MaybeText = Annotated[str, Field(json_schema_extra=_NO_NUL), AfterValidator(_without_nul)]
StopString = Annotated[
    str, Field(min_length=1, max_length=256, json_schema_extra=_NO_NUL), AfterValidator(_without_nul)
]

_StopList = Annotated[list[StopString], Field(max_length=16)]
StopStrings = Annotated[_StopList, BeforeValidator(_as_list, json_schema_input_type=StopString | _StopList)]

_TokenId = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,8})$")]
_Bias = Annotated[float, Field(ge=-100.0, le=100.0)]


def _by_token(bias: dict[str, float]) -> dict[str, float]:
    """In one order, so that the same bias is the same request."""
    return {token: bias[token] for token in sorted(bias, key=int)}


LogitBias = Annotated[
    dict[_TokenId, _Bias],
    Field(max_length=300, json_schema_extra={"additionalProperties": False}),
    AfterValidator(_by_token),
]


TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1, max_length=1_000_000),
]

ANY_OBJECT: Final = {"type": "object"}
"""The schema that every JSON object fits."""
MAX_SCHEMA_BYTES: Final = 16_384


def _small(schema: dict[str, Any]) -> dict[str, Any]:
    if len(to_json(schema)) > MAX_SCHEMA_BYTES:
        raise ValueError(f"a schema has at most {MAX_SCHEMA_BYTES} bytes")
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_small)]


class Message(Strict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: MaybeText | None = Field(
        None, description="Empty only as what a tool gave back; none only in an assistant's turn with `tool_calls`."
    )
    tool_calls: Annotated[list[ToolCall], Field(max_length=128)] = Field(default_factory=list, exclude_if=absent)
    tool_call_id: str | None = Field(None, exclude_if=absent, max_length=256, description="What a `tool` answers.")

    @field_validator("content")
    @classmethod
    def _empty_from_tools_only(cls, content: str | None, turn: ValidationInfo) -> str | None:
        if content == "" and turn.data.get("role") != "tool":
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        return content

    @model_validator(mode="after")
    def _fits_role(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls: only the assistant calls")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id: a turn of role tool has one, and no other has")
        if self.content is None and not self.tool_calls:
            raise ValueError("content: a turn without tool_calls has one")
        return self

    @property
    def chars(self) -> int:
        """Characters of its content, and of its calls' arguments."""
        return len(self.content or "") + sum(len(call.function.arguments) for call in self.tool_calls)


class GenerateRequest(Strict):
    """A prompt, or the messages of a chat, with the sampling parameters of one row."""

    task: Literal["generate", "embed"] = Field(
        "generate",
        exclude_if=_is_generate,
        description="embed: the prompt's embedding in place of a text; beside the prompt it takes `dimensions` alone.",
    )
    prompt: Text | None = Field(
        None,
        description="Text to continue, given to the model as it is, special tokens too. Exclusive with `messages`.",
    )
    prompt_token_ids: TokenIds | None = Field(
        None, description="The same as ids of the model's own tokens. Exclusive with `prompt` and `messages`."
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="A chat, rendered with the model's chat template. Exclusive with `prompt`."
    )
    continue_final_message: bool = Field(
        False,
        description="The text goes on in the last of the `messages`, which is the assistant's, in place of a new turn.",
    )
    dimensions: int | None = Field(
        None, ge=1, le=65_536, exclude_if=absent, description="Of `task` embed: how many numbers the embedding has."
    )
    max_tokens: int = Field(64, ge=1, description="The most tokens to generate.")
    temperature: float = Field(0.0, ge=0.0, le=10.0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus sampling: keep this much probability mass.")
    top_k: int = Field(0, ge=0, le=1_000_000, description="Keep the k likeliest tokens; 0 keeps all.")
    min_p: float = Field(
        0.0, ge=0.0, le=1.0, description="Keep tokens at least this likely in relation to the likeliest; 0 keeps all."
    )
    presence_penalty: float = Field(
        0.0, ge=-2.0, le=2.0, description="Taken off the logit of each token that the text generated so far has."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2.0, le=2.0, description="Taken off a token's logit once for each time that it was generated so far."
    )
    repetition_penalty: float = Field(
        1.0,
        ge=0.01,
        le=10.0,
        description="Logits of tokens in the prompt or the text so far are divided by it where they are positive, else "
        "multiplied with it. Unless it is 1, it takes the place of the model's own.",
    )
    logit_bias: LogitBias = Field(
        default_factory=dict,
        description="What is added to tokens' logits, by token id: -100 forbids nearly always, 100 nearly forces.",
    )
    json_schema: Schema | None = Field(
        None, description="The text is JSON that fits this schema, unless `max_tokens` or `stop` cuts it."
    )
    logprobs: bool = Field(False, description="Tell each token's log probability, by the model's own logits.")
    top_logprobs: int = Field(
        0, ge=0, le=MAX_TOP, description="And those of so many of the likeliest tokens; with `logprobs` only."
    )
    tools: Tools = Field(default_factory=list, exclude_if=absent, description="Functions that the model may call.")
    adapter: str = Field(
        "",
        max_length=128,
        exclude_if=_is_empty,
        description="LoRA adapter of the model, by name; `model` may have it as well: `model:adapter`.",
    )
    tool_choice: ToolChoice = Field(
        "auto",
        exclude_if=absent,
        description="none: without tools; required: one call at least; or the one function that is called.",
    )
    parallel_tool_calls: bool = Field(
        True, exclude_if=absent, description="false: a text that is held to calls has one call."
    )
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The same seed gives the same text; in 16-bit formats but for ties."
    )
    stop: StopStrings = Field(
        default_factory=list,
        description="Up to 16 strings, or special tokens by their texts, that end the text; they are not part of it.",
    )

    @model_validator(mode="after")
    def _one_input(self) -> GenerateRequest:
        if sum(given is not None for given in (self.prompt, self.prompt_token_ids, self.messages)) != 1:
            raise ValueError("give either prompt or messages, and not both")
        if self.continue_final_message and (self.messages is None or self.messages[-1].role != "assistant"):
            raise ValueError("continue_final_message: the last of the messages must be the assistant's")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only together with logprobs")
        return self

    @model_validator(mode="after")
    def _tools_fit(self) -> GenerateRequest:
        check_choice(self.tools, self.tool_choice)
        if self.tools and self.messages is None:
            raise ValueError("tools: they are for messages, not for a prompt")
        if self.offered_tools and self.json_schema is not None:
            raise ValueError("json_schema: not together with tools, unless tool_choice is none")
        if self.continue_final_message and self.messages and self.messages[-1].tool_calls:
            raise ValueError("continue_final_message: the last message has tool_calls")
        return self

    @model_validator(mode="after")
    def _fits_task(self) -> GenerateRequest:
        if self.task == "generate" and self.dimensions is not None:
            raise ValueError("dimensions: only with task embed")
        if self.task == "embed":
            for field in self.model_dump(include=_GENERATED - _EMBEDDED, exclude_defaults=True):
                raise ValueError(f"{field}: not with task embed")
        return self

    @property
    def offered_tools(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools

    @property
    def must_call(self) -> bool:
        """Whether the text is to be calls and nothing else."""
        return bool(self.tools) and self.tool_choice not in ("none", "auto")

    @property
    def is_deterministic(self) -> bool:
        """Whether nothing is drawn at random: the same request gives the same text, in 16 bits but for ties."""
        return self.temperature == 0 or self.seed is not None

    @property
    def input_chars(self) -> int:
        """Characters of prompt text, over all messages; a token counts as one."""
        written = len(self.prompt or "") + len(self.prompt_token_ids or ())
        return written + sum(m.chars for m in self.messages or ())

    def kwargs(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as they travel in the job's data."""
        return self.model_dump(include=_GENERATED, exclude_defaults=True)

    def cache_key(self, model: str) -> str:
        """SHA-256 (hex) over everything that a client asks for. What the workers run comes in when it is submitted.

        Args:
            model: its name, revision and number format as they are set.
        """
        return _digest(f"{CACHE_SCHEMA_VERSION}\0{model}\0{self.model_dump_json(include=_GENERATED)}")


class JobRequest(GenerateRequest):
    """The body of `POST /v1/jobs`: what to generate, and how the job is to be queued."""

    model: str = Field(
        "", max_length=512, exclude_if=_is_empty, description="One of `GET /v1/models`; empty: the default one."
    )
    priority: Priority = Field("default", description="The queue that the job waits in.")
    ttl_seconds: float | None = Field(
        None, gt=0, le=7 * 86400, description="Expire the job when it has waited this long for its first start."
    )
    timeout_seconds: float | None = Field(
        None, gt=0, le=86400, description="Fail the job when one run of it takes this long."
    )
    cache: bool = Field(True, description="Use, and fill, the result cache when the request is deterministic.")

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the whole body, to tell a repeat from a conflict."""
        return _digest(self.model_dump_json(include=_SUBMITTED))


_EMBEDDED = {"task", "prompt", "prompt_token_ids", "dimensions", "adapter"}
"""What a request for an embedding may say."""
_GENERATED = set(GenerateRequest.model_fields)
_SUBMITTED = set(JobRequest.model_fields)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
