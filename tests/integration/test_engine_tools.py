"""Tool calls of a random model: those that are required always parse and fit, and templates are told of tools."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.request import GenerateRequest
from tests.integration.engine_rows import ends, to_its_end
from tests.integration.tiny_engines import KERNELS, byte_tokenizer, tiny_engine, tiny_model
from tests.small_tokenizers import TOOL_CHAT

pytest.importorskip("xgrammar", reason="xgrammar is not installed: make install")
CONTEXT = 1024
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture(scope="module")
def engine() -> ContinuousEngine:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TOOL_CHAT
    model = tiny_model("llama")
    return ContinuousEngine(model, tokenizer, slots=4, context=CONTEXT, prefill_tokens=256, kernels=KERNELS)


def row(name: str, **fields: Any) -> Row:
    talk = [{"role": "user", "content": name}]
    asked = {"messages": talk, "max_tokens": 400, "temperature": 1.0, "seed": 3, "tools": TOOLS} | fields
    return Row(name, GenerateRequest.model_validate(asked))


def calls(text: str) -> list[dict[str, Any]]:
    parts = text.split("<tool_call>\n")
    assert parts[0] == ""
    return [json.loads(part.rstrip("\n").removesuffix("\n</tool_call>")) for part in parts[1:]]


@pytest.mark.parametrize(("choice", "parallel"), [("required", True), ("required", False), (NAMED, True)])
def test_what_is_required_parses_and_fits(engine: ContinuousEngine, choice: Any, parallel: bool) -> None:
    rows = [row(f"{n}", seed=n, tool_choice=choice, parallel_tool_calls=parallel) for n in range(12)]
    found = ends(engine, rows)
    whole = [end for end in found.values() if end.reason is FinishReason.STOP]
    assert len(whole) > 6, [(end.reason, end.error) for end in found.values()]
    for end in whole:
        made = calls(end.text)
        assert len(made) == 1 or (parallel and choice == "required")
        for call in made:
            assert call["name"] == "weather" or choice == "required"
            jsonschema_rs.validate(SCHEMA if call["name"] == "weather" else {"type": "object"}, call["arguments"])


def test_it_goes_on_at_any_token(engine: ContinuousEngine) -> None:
    tokens, whole = to_its_end(engine, row("a", tool_choice=NAMED))
    for count in range(0, len(tokens), 9):
        again = ends(engine, [replace(row("a", tool_choice=NAMED), progress=tokens[:count])])["a"]
        assert again.text == whole.text


@pytest.mark.parametrize("drawn", [{"temperature": 0.0}, {"logprobs": True}])
def test_rows_that_give_way_again_and_again_make_the_calls_that_they_would_have_made(
    engine: ContinuousEngine, drawn: dict[str, Any]
) -> None:
    """Whenever it is: while the grammar is compiled, in the prompt, or within a call; others take the slot."""
    rows = [row(f"{n}", seed=n, tool_choice="required", max_tokens=120, **drawn) for n in range(4)]
    wanted = {id: (end.text, end.reason) for id, end in ends(engine, rows).items()}
    assert all(text.startswith("<tool_call>") for text, _ in wanted.values())
    draw = random.Random(5)
    waiting, moves = list(rows), 0
    tokens: dict[str, list[int]] = {each.id: [] for each in rows}
    found: dict[str, tuple[str, FinishReason]] = {}
    while waiting or engine.live_rows():
        engine.add(taken := waiting[: engine.free_slots()])
        del waiting[: len(taken)]
        for event in engine.step(0.0).events:
            if event.id in tokens:
                tokens[event.id] += event.token_ids
                found |= {event.id: (event.end.text, event.end.reason)} if event.end else {}
        if draw.random() < 0.1:
            gone = engine.preempt([f"{draw.randrange(4)}"])
            waiting += [replace(each, progress=tokens[each.id]) for each in rows if each.id in gone]
            engine.add([row(f"urgent {moves}", tools=[], max_tokens=2) for _ in gone])
            moves += len(gone)
    assert found == wanted
    assert moves > 8


def test_a_stop_string_cuts_a_call(engine: ContinuousEngine) -> None:
    end = ends(engine, [row("a", tool_choice=NAMED, stop=['"days"'])])["a"]
    assert end.reason is FinishReason.STOP
    assert end.text.startswith('<tool_call>\n{"name": "weather", "arguments": {"city"')


def test_the_template_has_tools_calls_and_answers(engine: ContinuousEngine) -> None:
    call = {"id": "c", "function": {"name": "weather", "arguments": '{"city": "<end>", "days": 1}'}}
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny <end>", "tool_call_id": "c"},
    ]
    prompts = engine._starts._prompts
    ids = prompts.encode(GenerateRequest.model_validate({"messages": turns, "tools": TOOLS}))
    text = byte_tokenizer().decode(ids)
    assert '"name": "now"' in text
    assert '{"name": "weather", "arguments": {"city": "<end>", "days": 1}}' in text
    assert "<tool_response>sunny <end>" in text
    assert 256 not in ids, "what is sent is text, and no special token"


def test_a_template_without_tools_refuses_them() -> None:
    tokenizer_engine = tiny_engine(tiny_model("llama"))
    assert not tokenizer_engine.info.capabilities.tools
    end = ends(tokenizer_engine, [row("a")])["a"]
    assert end.error
    assert end.error[0] == "invalid_request"


def test_an_engine_says_that_it_knows_tools(engine: ContinuousEngine) -> None:
    assert engine.info.capabilities.tools
