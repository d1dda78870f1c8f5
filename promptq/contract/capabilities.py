"""Which parameters of a request not every engine can follow: what its engine cannot do is refused, never ignored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest

NEEDS: Final = {
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "repetition_penalty": "penalties",
    "logit_bias": "logit_bias",
    "json_schema": "json_schema",
    "logprobs": "logprobs",
    "prompt_token_ids": "token_prompts",
    "tools": "tools",
    "adapter": "adapters",
    "task": "embeddings",
}
"""By field, the capability without which an engine would ignore it. Each is a name of the engines' `Capabilities`."""

_SAID: Final = {"messages": "messages of tools and their calls", "task": "embeddings"}


def needed(request: GenerateRequest) -> dict[str, str]:
    """Of `NEEDS`, the fields that this request sets to something else than their defaults."""
    asked = request.model_dump(include=set(NEEDS), exclude_defaults=True)
    calls = any(turn.tool_calls or turn.role == "tool" for turn in request.messages or ())
    return {field: NEEDS[field] for field in asked} | ({"messages": "tools"} if calls else {})


def check(request: GenerateRequest, able: Collection[str], model: str) -> None:
    """Let a request through if its engine can do what it asks for.

    Args:
        able: the capabilities of the engine, by name.

    Raises:
        InvalidRequest: it cannot; names the first such field.
    """
    if request.task == "generate" and not _generates(able):
        raise InvalidRequest(f"The model {model} makes embeddings, and generates no text.", param="model")
    for field, capability in needed(request).items():
        if capability not in able:
            raise InvalidRequest(f"The engine of the model {model} cannot do {_SAID.get(field, field)}.", param=field)


def _generates(able: Collection[str]) -> bool:
    """Whether the engine generates text. Workers of earlier versions all do, and say neither of the two."""
    return "text" in able or "embeddings" not in able
