"""A request of ours in OpenAI's names, with vLLM's for what OpenAI has no name for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from promptq.contract.request import ANY_OBJECT, GenerateRequest
from promptq.contract.tools import Tool

AS_THEY_ARE: Final = (
    "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "seed",
)  # fmt: skip
"""Fields that are sent under their own names, where the request sets them."""
EMBEDDINGS: Final = "/embeddings"
SCHEMA_NAME: Final = "answer"
"""A schema has to have a name; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One request as it is sent.

    Attributes:
        path: behind the server's base URL.
    """

    path: str
    body: dict[str, Any]

    @property
    def is_embedding(self) -> bool:
        """Whether the answer is an embedding, which comes whole, and no stream of text."""
        return self.path == EMBEDDINGS


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server wants to be asked.

    Attributes:
        model: what the server calls the model.
        adapters: what it calls the model with each adapter.
        stop_limit: so many stop strings are sent.
        max_tokens_field: what the limit of a text is called.
        extra_body: added to each body.
    """

    model: str
    adapters: Mapping[str, str] = field(default_factory=dict)
    stop_limit: int = 4
    max_tokens_field: str = "max_tokens"
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def wire(self, request: GenerateRequest) -> Wire:
        """The request, with the fields that it sets; but for the two whose defaults are not the servers' own."""
        model = self.adapters.get(request.adapter, self.model)
        if request.task == "embed":
            return Wire(EMBEDDINGS, {"model": model, **_embedding(request), **self.extra_body})
        given = request.model_dump(include=set(AS_THEY_ARE), exclude_defaults=True)
        body = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            self.max_tokens_field: request.max_tokens,
            "temperature": request.temperature,
        }
        body |= given | self._stop(request) | _response_format(request)
        if request.messages is None:
            return Wire("/completions", {**body, **_prompt(request), **self.extra_body})
        return Wire("/chat/completions", {**body, **_chat(request), **self.extra_body})

    def _stop(self, request: GenerateRequest) -> dict[str, Any]:
        sent = request.stop[: self.stop_limit]
        return {"stop": sent} if sent else {}


def _embedding(request: GenerateRequest) -> dict[str, Any]:
    """Base64 is a third as long as numbers; a server that does not know it answers with those."""
    asked = {} if request.dimensions is None else {"dimensions": request.dimensions}
    return {"input": _input(request), "encoding_format": "base64"} | asked


def _input(request: GenerateRequest) -> Any:
    return request.prompt if request.prompt_token_ids is None else request.prompt_token_ids


def _prompt(request: GenerateRequest) -> dict[str, Any]:
    return {"prompt": _input(request)} | ({"logprobs": request.top_logprobs} if request.logprobs else {})


def _chat(request: GenerateRequest) -> dict[str, Any]:
    chat: dict[str, Any] = {"messages": [message.model_dump() for message in request.messages or ()]}
    if request.logprobs:
        chat |= {"logprobs": True} | ({"top_logprobs": request.top_logprobs} if request.top_logprobs else {})
    if request.continue_final_message:
        chat |= {"continue_final_message": True, "add_generation_prompt": False}
    return chat | _tools(request)


def _tools(request: GenerateRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    chosen = request.model_dump(include={"tool_choice", "parallel_tool_calls"}, exclude_defaults=True)
    return {"tools": [_tool(tool) for tool in request.tools]} | chosen


def _tool(tool: Tool) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)


def _response_format(request: GenerateRequest) -> dict[str, Any]:
    schema = request.json_schema
    if schema is None:
        return {}
    if schema == ANY_OBJECT:
        return {"response_format": {"type": "json_object"}}
    named = {"name": SCHEMA_NAME, "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}
