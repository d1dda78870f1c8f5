"""Tools through the unchanged openai SDK, against a worker with a tiny model whose template knows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

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
