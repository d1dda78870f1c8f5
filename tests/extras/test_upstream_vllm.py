"""The engine `upstream` in front of vLLM's own server: the same requests, the same texts, and nothing left running."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.vllm_serve import NAME, Side, vllm_serve
from gpu_worker.engines.base import FinishReason, Row, RowEnd
from gpu_worker.engines.continuous.loading import packaged
from gpu_worker.engines.upstream.engine import UpstreamEngine
from promptq.contract.request import GenerateRequest
from tests.fakes import SETTINGS
from tests.integration.engine_rows import ends
from tests.integration.upstreams import engine_before
from tests.processes import ROOT, wait_until

pytestmark = pytest.mark.timeout(900)

PYTHON = ROOT / ".venvs" / "vllm" / "bin" / "python"
PROMPT = "Once upon a time, in a small village by the sea,"
ALL = ["streaming", "penalties", "logit_bias", "json_schema", "logprobs", "token_prompts"]


@pytest.fixture(scope="module")
def server() -> Iterator[Side]:
    if not PYTHON.exists() or not list(PYTHON.parent.parent.glob("lib/python3.*/site-packages/vllm")):
        pytest.skip("vLLM is not in .venvs/vllm: make test-extras")
    with vllm_serve(PYTHON, packaged.folder(SETTINGS.data_dir), 8, eager=True) as side:
        yield side


@pytest.fixture
def engine(server: Side, tmp_path: Path) -> Iterator[UpstreamEngine]:
    made = engine_before(f"{server.url}/v1", tmp_path, {"capabilities": ALL}, upstream_model=NAME, slots=8)
    yield made
    made.close()


def end_of(engine: UpstreamEngine, **request: Any) -> RowEnd:
    return ends(engine, [Row("a", GenerateRequest.model_validate({"max_tokens": 12, **request}))])["a"]


def direct(server: Side, path: str, **body: Any) -> dict[str, Any]:
    reply = requests.post(f"{server.url}/v1/{path}", json={"model": NAME, "temperature": 0, **body}, timeout=120)
    assert reply.ok, reply.text
    return dict(reply.json())


def test_a_prompt_s_text_and_usage_are_the_server_s(server: Side, engine: UpstreamEngine) -> None:
    said = direct(server, "completions", prompt=PROMPT, max_tokens=12)
    end = end_of(engine, prompt=PROMPT)
    assert (end.text, end.reason) == (said["choices"][0]["text"], FinishReason.LENGTH)
    assert (end.prompt_tokens, end.completion_tokens) == (said["usage"]["prompt_tokens"], 12)


def test_a_chat_s_text_is_the_server_s(server: Side, engine: UpstreamEngine) -> None:
    messages = [{"role": "user", "content": "Name a river."}]
    said = direct(server, "chat/completions", messages=messages, max_tokens=12)
    end = end_of(engine, messages=messages)
    assert end.text == said["choices"][0]["message"]["content"]


def test_parameters_that_openai_lacks_reach_it(server: Side, engine: UpstreamEngine) -> None:
    fields = {"repetition_penalty": 1.5, "top_k": 5, "min_p": 0.1, "seed": 3, "temperature": 0.8}
    said = direct(server, "completions", prompt=PROMPT, max_tokens=12, **fields)
    assert end_of(engine, prompt=PROMPT, **fields).text == said["choices"][0]["text"]


def test_many_stop_strings_end_the_text_exactly(engine: UpstreamEngine) -> None:
    whole = end_of(engine, prompt=PROMPT, max_tokens=24).text
    stops = ["zzz", "qqq", "xxx", "jjj", "kkk", whole.split()[4]]
    end = end_of(engine, prompt=PROMPT, max_tokens=24, stop=stops)
    assert (end.text, end.reason) == (whole[: whole.index(stops[-1])], FinishReason.STOP)


def test_a_schema_holds_the_text(server: Side, engine: UpstreamEngine) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    messages = [{"role": "user", "content": "A number?"}]
    end = end_of(engine, messages=messages, json_schema=schema, max_tokens=32)
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    said = direct(server, "chat/completions", messages=messages, max_tokens=32, response_format=given)
    assert end.text == said["choices"][0]["message"]["content"]
    # The model may go on with white space for ever, which the grammar of the server allows.
    assert re.match(r'\{\s*("n"|$)', end.text)


def test_a_prompt_that_is_too_long_fails_with_the_server_s_words(engine: UpstreamEngine) -> None:
    end = end_of(engine, prompt="word " * 3000)
    assert end.reason is FinishReason.ERROR
    assert end.error is not None
    assert end.error[0] == "invalid_request"


def test_a_cancelled_row_is_aborted_there(server: Side, engine: UpstreamEngine) -> None:
    engine.add([Row("a", GenerateRequest(prompt=PROMPT, max_tokens=1900, logit_bias={"0": -100}))])
    events: list[Any] = []
    wait_until(lambda: events.extend(engine.step(0.0).events) or events, 60, "the first text")
    engine.cancel(["a"])
    wait_until(lambda: events.extend(engine.step(0.0).events) or events[-1].end, 60, "its end")
    assert events[-1].end.reason is FinishReason.CANCELLED

    def running() -> float:
        lines = requests.get(f"{server.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))

    wait_until(lambda: running() == 0, 30, "the server to let go of it")
