"""What OpenAI's clients send and get for embeddings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from promptq.contract import embeddings
from promptq.contract.job import Result
from promptq.contract.queues import Priority
from promptq.contract.request import Text, TokenIds
from promptq.openai.body import Body, WithoutEffect
from promptq.openai.fields import Prompt, as_prompts

MAX_INPUTS = 2048
"""As many as OpenAI takes in one call."""
EncodingFormat = Literal["float", "base64"]
PARAMS = {"prompt": "input", "prompt_token_ids": "input", "messages": "input", "task": "model"}
"""What the fields of a job are called here."""
_AS_THEY_ARE = ("model", "dimensions", "priority", "ttl_seconds", "timeout_seconds", "cache")

_Inputs = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_INPUTS)]
Inputs = Annotated[_Inputs, BeforeValidator(as_prompts, json_schema_input_type=Text | TokenIds | _Inputs)]


class EmbeddingsRequest(Body):
    """Texts, of which each one's embedding is asked for."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "all-MiniLM-L6-v2", "input": ["a river", "a mountain"]}}
    )

    model: str = Field(min_length=1)
    input: Inputs = Field(description="A text, token ids, or a list of such: each is a job.")
    encoding_format: EncodingFormat | None = Field(
        None, description="base64: little-endian float32, which the SDKs ask for and read; float unless given."
    )
    dimensions: int | None = Field(None, ge=1, le=65_536, description="For models that can shorten their embeddings.")
    user: WithoutEffect = None
    priority: Priority | None = Field(None, description="Ours: the queue.")
    ttl_seconds: float | None = Field(None, gt=0, le=7 * 86400, description="Ours: the longest wait for a start.")
    timeout_seconds: float | None = Field(None, gt=0, le=86400, description="Ours: the longest run.")
    cache: bool | None = Field(None, description="Ours: false: the cache is neither asked nor filled.")

    def jobs(self) -> list[dict[str, Any]]:
        """The fields of each input's job."""
        given = {name: value for name in _AS_THEY_ARE if (value := getattr(self, name)) is not None}
        names = ("prompt" if isinstance(one, str) else "prompt_token_ids" for one in self.input)
        return [{"task": "embed", name: one} | given for name, one in zip(names, self.input, strict=True)]


def answer(model: str, results: Sequence[Result], encoding_format: EncodingFormat | None) -> dict[str, Any]:
    """The embeddings, in the order of their inputs."""
    tokens = sum(result.prompt_tokens for result in results)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(result.embedding, encoding_format)}
            for index, result in enumerate(results)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(embedding: Sequence[float], encoding_format: EncodingFormat | None) -> str | Sequence[float]:
    return embeddings.packed(embedding) if encoding_format == "base64" else embedding
