"""What a request looks like to the server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from gpu_worker.engines.upstream.request_body import Dialect
from promptq.contract.request import GenerateRequest
from promptq.openai.embeddings import EmbeddingsRequest
from promptq.openai.fields import ChatCompletion, Completion

DIALECT = Dialect("far", {"polite": "far-polite"})
ALWAYS = {
    "model": "far", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 64, "temperature": 0.0,
}  # fmt: skip
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "function", "function": {"name": "look"}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
EMBED = {"input": "p", "encoding_format": "base64"}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


KINDS: dict[str, type[BaseModel]] = {
    "/completions": Completion, "/chat/completions": ChatCompletion, "/embeddings": EmbeddingsRequest,
}  # fmt: skip


def sent(dialect: Dialect = DIALECT, **fields: Any) -> dict[str, Any]:
    """What a request has beside what all have."""
    given = {} if fields.keys() & {"messages", "prompt", "prompt_token_ids"} else {"prompt": "p"}
    body = dialect.wire(GenerateRequest(**given, **fields)).body
    return {name: value for name, value in body.items() if name not in ALWAYS or value != ALWAYS[name]}


def test_a_prompt_and_a_chat_have_paths_of_their_own() -> None:
    assert DIALECT.wire(GenerateRequest(prompt="p")).body == ALWAYS | {"prompt": "p"}
    assert DIALECT.wire(GenerateRequest(prompt="p")).path == "/completions"
    assert DIALECT.wire(GenerateRequest(**CHAT)).path == "/chat/completions"
    assert DIALECT.wire(GenerateRequest(**CHAT)).body == ALWAYS | CHAT


def test_an_embedding_is_asked_for_whole() -> None:
    wire = DIALECT.wire(GenerateRequest(task="embed", prompt_token_ids=[1, 2], adapter="polite"))
    assert (wire.path, wire.is_embedding) == ("/embeddings", True)
    assert wire.body == {"model": "far-polite", "input": [1, 2], "encoding_format": "base64"}
    assert not DIALECT.wire(GenerateRequest(prompt="p")).is_embedding
    plain = Dialect("far", extra_body={"encoding_format": "float"})
    assert plain.wire(GenerateRequest(task="embed", prompt="p")).body["encoding_format"] == "float"


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt": ({"prompt": "q"}, {"prompt": "q"}),
    "prompt_token_ids": ({"prompt_token_ids": [1, 2]}, {"prompt": [1, 2]}),
    "messages": (CHAT, CHAT),
    "continue_final_message": (
        {"messages": [{"role": "assistant", "content": "a"}], "continue_final_message": True},
        {
            "messages": [{"role": "assistant", "content": "a"}], "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ),
    "max_tokens": ({"max_tokens": 7}, {"max_tokens": 7, "prompt": "p"}),
    "temperature": ({"temperature": 1.0}, {"temperature": 1.0, "prompt": "p"}),
    "json_schema": (
        CHAT | {"json_schema": SCHEMA},
        CHAT
        | {
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            },
        },
    ),
    "logprobs": (CHAT | {"logprobs": True}, CHAT | {"logprobs": True}),
    "top_logprobs": (
        CHAT | {"logprobs": True, "top_logprobs": 3},
        CHAT | {"logprobs": True, "top_logprobs": 3},
    ),
    "tools": (CHAT | {"tools": [TOOL]}, CHAT | {"tools": [TOOL]}),
    "adapter": ({"adapter": "polite"}, {"model": "far-polite", "prompt": "p"}),
    "tool_choice": (
        CHAT | {"tools": [TOOL], "tool_choice": NAMED},
        CHAT | {"tools": [TOOL], "tool_choice": NAMED},
    ),
    "parallel_tool_calls": (
        CHAT | {"tools": [TOOL], "parallel_tool_calls": False},
        CHAT | {"tools": [TOOL], "parallel_tool_calls": False},
    ),
    "task": ({"task": "embed"}, EMBED),
    "dimensions": ({"task": "embed", "dimensions": 3}, EMBED | {"dimensions": 3}),
    "stop": ({"stop": ["a", "b", "c", "d", "e"]}, {"stop": ["a", "b", "c", "d"], "prompt": "p"}),
}  # fmt: skip
CASES |= {
    name: ({name: value}, {name: value, "prompt": "p"})
    for name, value in {
        "top_p": 0.5, "top_k": 3, "min_p": 0.1, "presence_penalty": 1.0, "frequency_penalty": -1.0,
        "repetition_penalty": 1.2, "logit_bias": {"7": 1.5}, "seed": 9,
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(GenerateRequest.model_fields))
def test_every_field_of_a_request_is_sent(field: str) -> None:
    given, expected = CASES[field]
    assert sent(**given) == expected


@pytest.mark.parametrize("field", sorted(set(CASES) - {"adapter", "prompt_token_ids"}))
def test_a_promptq_as_the_server_knows_every_field(field: str) -> None:
    given, _ = CASES[field]
    prompt = {} if given.keys() & {"messages", "prompt"} else {"prompt": "p"}
    wire = DIALECT.wire(GenerateRequest(**prompt, **given))
    KINDS[wire.path].model_validate(wire.body)


def test_any_object_has_a_name_of_its_own() -> None:
    assert sent(**CHAT, json_schema={"type": "object"})["response_format"] == {"type": "json_object"}


def test_turns_with_calls_are_sent_as_they_are() -> None:
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "done", "tool_call_id": "1"},
    ]
    assert sent(messages=turns)["messages"] == turns


def test_of_a_completion_the_likeliest_tokens_are_a_number() -> None:
    assert sent(logprobs=True)["logprobs"] == 0
    assert sent(logprobs=True, top_logprobs=2)["logprobs"] == 2


def test_a_server_may_have_names_and_wishes_of_its_own() -> None:
    dialect = Dialect("far", stop_limit=0, max_tokens_field="max_completion_tokens", extra_body={"cache": False})
    assert sent(dialect, stop=["a"]) == {"max_completion_tokens": 64, "cache": False, "prompt": "p"}
