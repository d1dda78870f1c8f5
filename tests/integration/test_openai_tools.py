"""Tools through the unchanged openai SDK, against a worker with a tiny model whose template knows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.integration.tiny_engines import byte_tokenizer, tiny_model
from tests.processes import start
from tests.small_tokenizers import TOOL_CHAT

pytest.importorskip("xgrammar", reason="xgrammar is not installed: make install")
SCHEMA = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["days"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
ASK: Any = {"role": "user", "content": "?"}
FLAT: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
CALL: Any = {"tools": FLAT, "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 200}
ARGUMENTS = "response.function_call_arguments"


class Weather(BaseModel):
    """What the function takes, for the SDK's own parser."""

    days: int = Field(ge=0, le=9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer, model = byte_tokenizer(), tiny_model("llama")
    tokenizer.chat_template = TOOL_CHAT
    model.config.max_position_embeddings = 1024
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def client(server: EmbeddedServer, model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    settings = {"engine": "continuous", "model": model}
    worker = start("gpu_worker", server, worker_name="tools", **settings)
    try:
        with running(server, tmp_path_factory.mktemp("api"), 1, **settings) as api:
            yield openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0, timeout=60)
    finally:
        worker.kill()
        worker.wait()


def test_a_call_whole_as_it_comes_and_its_answer(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "tools": TOOLS, "tool_choice": NAMED, "seed": 1, "max_completion_tokens": 200}
    answer = client.chat.completions.create(messages=[ASK], **asked)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments).keys()) == ("weather", {"days"})
    chunks = list(client.chat.completions.create(messages=[ASK], stream=True, **asked))
    (told,) = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert told.function
    assert (told.index, told.function.arguments) == (0, call.function.arguments)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    turns: Any = [ASK, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    client.chat.completions.create(messages=turns, model=model, tools=TOOLS, max_completion_tokens=3)


def test_what_does_not_go_together_is_refused_by_name(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.chat.completions.create(messages=[ASK], model=model, tool_choice="required")


def test_a_response_calls_and_goes_on_with_the_answer(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input=[ASK], temperature=0, **CALL)
    assert first.status == "completed"
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments).keys(), call.status) == ("weather", {"days"}, "completed")
    assert (first.tools[0].to_dict(), first.tool_choice.to_dict()) == (FLAT[0], CALL["tool_choice"])
    answer: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    on: Any = {"model": model, "tools": FLAT, "temperature": 0, "max_output_tokens": 5, "extra_body": {"cache": False}}
    behind = client.responses.create(input=[answer], previous_response_id=first.id, **on)
    parts = answer | {"output": [{"type": "input_text", "text": "sunny"}]}
    items: Any = [ASK, *(item.to_dict() for item in first.output), parts]
    told = client.responses.create(input=items, **on)
    assert (behind.output_text, behind.usage.input_tokens) == (told.output_text, told.usage.input_tokens)
    turns: Any = [
        ASK,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": _function(call)}]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    nested: Any = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}]
    chat = client.chat.completions.create(
        model=model, messages=turns, tools=nested, temperature=0, max_tokens=5, extra_body={"cache": False}
    )
    assert (chat.choices[0].message.content, chat.usage.prompt_tokens) == (told.output_text, told.usage.input_tokens)


def _function(call: Any) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def test_a_response_of_calls_as_it_comes(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input=[ASK], **CALL) as stream:
        events: list[Any] = list(stream)
        (call,) = stream.get_final_response().output
    assert [event.type for event in events] == [
        "response.created", "response.queued", "response.in_progress", "response.output_item.added",
        f"{ARGUMENTS}.delta", f"{ARGUMENTS}.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    added, delta, done, ended = events[3:7]
    assert (added.item.arguments, added.item.status, added.item.call_id) == ("", "in_progress", call.call_id)
    assert delta.delta == done.arguments == delta.snapshot == call.arguments == ended.item.arguments
    assert {delta.item_id, done.item_id, added.item.id, ended.item.id} == {call.id}
    assert {event.output_index for event in events[3:7]} == {0}


def test_the_sdk_parses_a_response_s_calls(client: openai.OpenAI, model: str) -> None:
    tools: Any = [openai.pydantic_function_tool(Weather)]
    asked: Any = {"input": [ASK], "tools": tools, "tool_choice": "required", "max_output_tokens": 400}
    parsed = client.responses.parse(model=model, parallel_tool_calls=False, **asked)
    (call,) = parsed.output
    assert call.type == "function_call"
    assert isinstance(call.parsed_arguments, Weather)
    again: Any = [ASK, *parsed.output, {"type": "function_call_output", "call_id": call.call_id, "output": "wet"}]
    assert client.responses.create(model=model, input=again, max_output_tokens=3).status in ("completed", "incomplete")


def test_a_stream_of_calls_is_gone_on_with_behind_any_number(client: openai.OpenAI, model: str) -> None:
    response = client.responses.create(model=model, input=[ASK], background=True, **CALL)
    whole: Any = [event.to_dict() for event in client.responses.retrieve(response.id, stream=True)]
    numbers = [event["sequence_number"] for event in whole]
    assert (numbers, whole[-1]["type"]) == (sorted(set(numbers)), "response.completed")
    for after in range(numbers[-1] + 2):
        rest = [event.to_dict() for event in client.responses.retrieve(response.id, stream=True, starting_after=after)]
        assert rest == [event for event in whole if event["sequence_number"] > after]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [*FLAT, {"type": "web_search"}]}, "tools.1.type"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools.0.name"),
        ({"tools": FLAT * 2}, "tools"),
        ({"tools": FLAT, "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": FLAT, "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": FLAT, "text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "x"}]}, "input.0.arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": []}]}, "input.0.output"),
        ({"input": [ASK, {"type": "function_call_output", "output": "x"}]}, "input.1.call_id"),
        ({"input": [ASK, {"type": "reasoning", "summary": []}]}, "input.1.type"),
    ],
)
def test_what_a_response_s_tools_cannot_be_is_named(
    client: openai.OpenAI, model: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**({"model": model, "input": [ASK]} | fields))
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
