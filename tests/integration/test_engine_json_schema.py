"""Texts that fit a JSON schema, of models that know nothing of JSON."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.request import ANY_OBJECT, GenerateRequest
from tests.integration.engine_rows import ends, to_its_end
from tests.integration.tiny_engines import CONTEXT, WAYS, tiny_engine, tiny_model
from tests.schemas import random_schema

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("xgrammar", reason="xgrammar is not installed: make install")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "n"],
    "additionalProperties": False,
}


def row(name: str, schema: dict[str, Any] | None = SCHEMA, **fields: Any) -> Row:
    fields = {
        "prompt": f"{name}:",
        "max_tokens": CONTEXT,
        "temperature": 1.0,
        "seed": 3,
        "json_schema": schema,
    } | fields
    return Row(name, GenerateRequest.model_validate(fields))


@pytest.fixture(params=WAYS, scope="module")
def engine(request: pytest.FixtureRequest) -> ContinuousEngine:
    return tiny_engine(tiny_model("llama"), **WAYS[request.param])


def test_whatever_is_drawn_parses_and_fits(engine: ContinuousEngine) -> None:
    rng = random.Random(1)
    schemas = {f"row {number}": random_schema(rng) for number in range(30)}
    found = ends(engine, [row(name, schema, seed=number) for number, (name, schema) in enumerate(schemas.items())])
    whole = {name: end for name, end in found.items() if end.reason is FinishReason.STOP}
    assert len(whole) > 20, "the others were cut at the end of the context"
    for name, end in whole.items():
        jsonschema_rs.validate(schemas[name], json.loads(end.text))
    assert {end.reason for end in found.values()} <= {FinishReason.STOP, FinishReason.LENGTH}


def test_any_object_and_greedy_too(engine: ContinuousEngine) -> None:
    found = ends(engine, [row("any", ANY_OBJECT, max_tokens=40), row("greedy", temperature=0.0)])
    assert found["any"].text.startswith("{")
    jsonschema_rs.validate(SCHEMA, json.loads(found["greedy"].text))


def test_neighbours_do_not_notice_and_it_does_not_notice_them(engine: ContinuousEngine) -> None:
    plain = [row(f"plain {number}", None, max_tokens=20, seed=number) for number in range(3)]
    alone = {each.id: ends(engine, [each])[each.id].text for each in [*plain, row("held")]}
    assert {name: end.text for name, end in ends(engine, [*plain, row("held")]).items()} == alone


def test_it_goes_on_at_any_token(engine: ContinuousEngine) -> None:
    tokens, whole = to_its_end(engine, row("a"))
    for count in range(0, len(tokens), 3):
        again = ends(engine, [replace(row("a"), progress=tokens[:count])])["a"]
        assert (again.text, again.completion_tokens) == (whole.text, whole.completion_tokens)


def test_a_stop_string_cuts_it(engine: ContinuousEngine) -> None:
    end = ends(engine, [row("a", stop=['"n"'])])["a"]
    assert end.reason is FinishReason.STOP
    assert end.text.startswith('{"name": "')
    assert '"n"' not in end.text


def test_a_schema_that_cannot_be_followed_fails_its_row_alone(engine: ContinuousEngine) -> None:
    found = ends(engine, [row("bad", {"type": "objekt"}), row("good")])
    assert found["good"].reason is FinishReason.STOP
    assert found["bad"].error is not None
    kind, message = found["bad"].error
    assert kind == "invalid_request"
    assert "json_schema" in message
    assert "objekt" in message


def test_others_go_on_while_a_schema_compiles(engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    release: Future[Any] = Future()
    compile_schema: Callable[[dict[str, Any]], Any] = engine._grammars._compile
    monkeypatch.setattr(engine._grammars, "_compile", lambda schema: (release.result(), compile_schema(schema))[1])
    engine.add([row("held"), row("plain", None, max_tokens=5)])
    seen: list[str] = []
    while "plain" not in seen:
        seen += [event.id for event in engine.step(0.0).events if event.end]
    assert engine.live_rows() == 1
    began = time.monotonic()
    engine.step(0.0)
    assert time.monotonic() - began < 1
    release.set_result(None)
    while "held" not in seen:
        seen += [event.id for event in engine.step(0.0).events if event.end]


def test_one_that_waits_for_its_schema_can_be_cancelled_and_preempted(
    engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release: Future[Any] = Future()
    monkeypatch.setattr(engine._grammars, "_compile", lambda _: release.result())
    engine.add([row("a"), row("b")])
    engine.step(0.0)
    assert engine.preempt(["b"]) == ["b"]
    engine.cancel(["a"])
    (event,) = engine.step(0.0).events
    release.set_result(None)
    assert event.end is not None
    assert (event.end.reason, engine.live_rows()) == (FinishReason.CANCELLED, 0)


def test_a_schema_that_no_text_fits_is_the_requests_fault(engine: ContinuousEngine) -> None:
    end = ends(engine, [row("none", {"$ref": "#"})])["none"]
    assert end.error is not None
    assert end.error[0] == "invalid_request"


def test_schemas_of_rows_that_are_gone_are_not_compiled(
    engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    release: Future[Any] = Future()
    compiled: list[dict[str, Any]] = []

    def compile_schema(schema: dict[str, Any]) -> Any:
        compiled.append(schema)
        return release.result()

    monkeypatch.setattr(engine._grammars, "_compile", compile_schema)
    engine.add([row("first"), row("second", {"type": "object", "title": "never"})])
    engine.step(0.0)
    engine.cancel(["first", "second"])
    assert len(engine.step(0.0).events) == 2
    release.set_result(None)
    engine._grammars._thread.submit(lambda: None).result()
    assert compiled == [SCHEMA]
