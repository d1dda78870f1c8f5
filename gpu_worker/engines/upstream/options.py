"""What `options` of a catalogue's entry may say of an upstream server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from promptq.contract.errors import SettingsError

Capability = Literal[
    "text", "streaming", "penalties", "logit_bias", "json_schema", "logprobs", "tools", "token_prompts", "embeddings"
]
ALL: frozenset[Capability] = frozenset(Capability.__args__)  # type: ignore[attr-defined]
DEFAULT: frozenset[Capability] = ALL - {"embeddings"}
"""What an OpenAI-compatible server is taken to have, unless the entry says otherwise: most run one model of text."""
WITHOUT_TEXT: frozenset[Capability] = frozenset({"token_prompts", "embeddings"})
"""Those that mean something of a server that generates no text."""
_Seconds = Annotated[float, Field(gt=0, le=86_400)]
_Slots = Annotated[int, Field(ge=1, le=10_000)]


class UpstreamOptions(BaseModel):
    """How a server is spoken to, and how much of it is used.

    Attributes:
        capabilities: what the server can do; jobs that ask for anything else are refused. It generates text unless
            `embeddings` is listed and `text` is not.
        stop_limit: so many stop strings are sent; those beyond are looked for here alone.
        max_tokens_field: what the server calls the limit of a text.
        min_slots, first_slots, max_slots: of `slots = "auto"`: the least requests at once, those to begin with, the
            most.
        connect_timeout_seconds: to connect.
        read_timeout_seconds: between two pieces of a text, and before the first one.
        max_retry_seconds: the longest time for which the server is left alone, whatever its `Retry-After` says.
        headers: sent with each request.
        extra_body: fields that are added to each request's body, as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    capabilities: frozenset[Capability] = DEFAULT
    stop_limit: int = Field(4, ge=0, le=16)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    min_slots: _Slots = 1
    first_slots: _Slots = 16
    max_slots: _Slots = 256
    connect_timeout_seconds: _Seconds = 5.0
    read_timeout_seconds: _Seconds = 300.0
    max_retry_seconds: _Seconds = 60.0
    headers: Mapping[str, str] = Field(default_factory=dict)
    extra_body: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_slots <= self.first_slots <= self.max_slots:
            raise ValueError("first_slots: must lie between min_slots and max_slots")
        return self

    @field_validator("capabilities")
    @classmethod
    def _complete(cls, listed: frozenset[Capability]) -> frozenset[Capability]:
        """With what goes without saying: text, and with it that it is streamed."""
        if "text" in listed or "embeddings" not in listed:
            return listed | {"text", "streaming"}
        if wrong := sorted(listed - WITHOUT_TEXT):
            raise ValueError(f"{wrong[0]}: only with text, which is not listed beside embeddings")
        return listed

    @classmethod
    def read(cls, model: str, options: Mapping[str, Any]) -> Self:
        """The options of a model's entry.

        Raises:
            SettingsError: one is unknown or impossible; the message names it.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in ("options", *first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"the model {model}: {place}: {message}", param="PROMPTQ_MODELS_FILE") from None
