"""Penalties and biases of requests: token for token what transformers' own processor and plain formulas give."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous import penalties
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.sampling import NOT_FINITE, choose
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest
from tests.integration.engine_rows import row, run
from tests.integration.tiny_engines import (
    EOS,
    NEAR_TIE,
    WAYS,
    Recorder,
    Reference,
    byte_tokenizer,
    drive,
    round_model,
    same,
    tiny_engine,
    tiny_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")

MIXES = 9  # for each of twelve engines
TOKENS = 20
VOCABULARY = EOS + 1
PROMPTS = ["abcabcabc", "the same again, the same", "x", "1, 2, 3, 1, 2, 3,", "deabc"]
# One that repeats itself, so that rows guess ahead, and three whose texts are all different.
MODELS = {"round": round_model} | {name: (lambda name=name: tiny_model(name)) for name in ("llama", "qwen2", "gpt2")}
EACH: dict[str, dict[str, Any]] = {
    "presence_penalty": {"presence_penalty": 2.0},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "a rewarded repeat": {"frequency_penalty": -2.0},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "a repetition penalty below 1": {"repetition_penalty": 0.6},
    "a forbidden token": {"logit_bias": {str(token): -100 for token in range(60, 130)}},
    "a forced token": {"logit_bias": {"77": 100}},
}
STRONG: dict[str, Any] = {
    "presence_penalty": 0.3, "frequency_penalty": 0.4, "repetition_penalty": 1.1, "logit_bias": {"99": -0.5, "65": 3.0},
}  # fmt: skip

loaded = cache(lambda name: MODELS[name]())


@cache
def reference(name: str, request: str) -> Reference:
    """Greedy tokens by a full forward pass for each."""
    asked = GenerateRequest.model_validate_json(request)
    ids = byte_tokenizer()(asked.prompt)["input_ids"]
    tokens: list[int] = []
    near_tie = None
    while len(tokens) < asked.max_tokens:
        best = edited(loaded(name)(torch.tensor([ids + tokens])).logits[:, -1], asked, ids, tokens)[0].topk(2)
        if near_tie is None and best.values[0] - best.values[1] < NEAR_TIE:
            near_tie = len(tokens)
        if best.indices[0] == EOS:
            break
        tokens.append(int(best.indices[0]))
    return Reference(tokens, near_tie)


def edited(logits: torch.Tensor, asked: GenerateRequest, ids: list[int], tokens: list[int]) -> torch.Tensor:
    repetition = RepetitionPenaltyLogitsProcessor(asked.repetition_penalty)
    logits = repetition(torch.tensor([ids + tokens]), logits)
    counts = torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=VOCABULARY)
    logits = logits - asked.frequency_penalty * counts - asked.presence_penalty * (counts > 0)
    for token, bias in asked.logit_bias.items():
        logits[0, int(token)] += bias
    return logits


def wanted(name: str, asked: Row) -> Reference:
    return reference(name, asked.request.model_dump_json())


def random_row(rng: random.Random, id: str) -> Row:
    tokens = rng.sample(range(VOCABULARY), rng.choice([1, 5, 50]))
    choices: dict[str, Any] = {
        "presence_penalty": round(rng.uniform(-2, 2), 2),
        "frequency_penalty": round(rng.uniform(-2, 2), 2),
        "repetition_penalty": round(rng.uniform(0.5, 2.5), 2),
        "logit_bias": {str(token): rng.choice([-100.0, -1.0, 0.5, 2.0]) for token in tokens},
    }
    asked = {field: value for field, value in choices.items() if rng.random() < 0.5}
    return row(id, rng.choice(PROMPTS), max_tokens=rng.randint(1, TOKENS), **asked)


@torch.inference_mode()
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_random_mixes_give_what_the_formulas_give(name: str, way: str) -> None:
    engine, recorder, near_ties = tiny_engine(loaded(name), **WAYS[way]), Recorder(), 0
    recorder.watch(engine)
    for mix in range(MIXES):
        rng = random.Random(f"{name} {mix}")
        rows = [random_row(rng, f"{mix} {number}") for number in range(rng.randint(1, 6))]
        drive(engine, recorder, list(rows), [], rng)
        near_ties += sum(not same(recorder.tokens.get(each.id, []), wanted(name, each)) for each in rows)
    assert near_ties <= 1
    assert recorder.right_drafts > 0 or name != "round" or way == "transformers"


@torch.inference_mode()
@pytest.mark.parametrize("fields", EACH.values(), ids=EACH)
def test_each_of_them_changes_a_text(fields: dict[str, Any]) -> None:
    """Or the test above would show nothing."""
    cases = [(name, prompt) for name in MODELS for prompt in PROMPTS]
    assert any(
        wanted(name, row("a", prompt, **fields)).tokens != wanted(name, row("a", prompt)).tokens
        for name, prompt in cases
    )


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("name", ["round", "llama"])
def test_a_row_goes_on_at_any_token_as_if_it_had_never_stopped(name: str, temperature: float) -> None:
    """What was generated before counts as generated, not as prompt."""
    asked = row("a", "abc", max_tokens=15, temperature=temperature, seed=3, **STRONG)
    engine, whole = tiny_engine(loaded(name)), Recorder()
    whole.watch(engine)
    drive(engine, whole, [asked], [], random.Random(1))
    tokens, text = list(whole.tokens["a"]), whole.ends["a"].text
    for cut in range(len(tokens) + 1):
        assert run(engine, [replace(asked, progress=tokens[:cut])]).ends["a"].text == text, cut


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_save_steps_and_change_nothing(temperature: float) -> None:
    asked = {"temperature": temperature, "max_tokens": 30, "frequency_penalty": 0.2, "logit_bias": {"3": 1.0}}
    rows = [row(str(seed), "abcde", seed=seed, **asked) for seed in range(2)]
    with_drafts, without = (run(tiny_engine(loaded("round"), drafts=drafts), rows) for drafts in (True, False))
    assert with_drafts.right_drafts > 0 == without.right_drafts
    assert with_drafts.text == without.text


@pytest.mark.parametrize("way", WAYS)
def test_a_row_gives_in_company_what_it_gives_alone(way: str) -> None:
    drawn = {"temperature": 1.0, "seed": 5}
    rows = [row("plain"), row("drawn", **drawn), row("both", **drawn, **STRONG), row("few", min_p=0.2, **drawn)]
    engine = tiny_engine(loaded("llama"), **WAYS[way])
    alone = {each.id: run(engine, [each]).text for each in rows}
    together = run(engine, rows).text
    assert {id: {id: text} for id, text in together.items()} == alone
    assert together["drawn"] != together["both"]


def test_a_step_that_is_repeated_counts_nothing_twice() -> None:
    rows = [row("a", "abcde", **STRONG), row("b", "abc", repetition_penalty=1.5)]
    plain, engine = run(tiny_engine(loaded("round")), rows).text, tiny_engine(loaded("round"))
    passes, failed, compute = 0, 0, engine._runner.run

    def failing(chunks: Any) -> Chosen:
        nonlocal passes, failed
        chosen, passes = compute(chunks), passes + 1
        if len(chunks) > 1 and passes % 2:
            failed += 1
            raise RuntimeError("any fault")
        return chosen

    engine._runner.run = failing  # type: ignore[method-assign]
    assert run(engine, rows).text == plain
    assert failed > 1


def test_min_p_1_is_greedy_whatever_the_temperature() -> None:
    rows = [row("greedy"), row("drawn", temperature=2.0, min_p=1.0, seed=1)]
    text = run(tiny_engine(loaded("llama")), rows).text
    assert text["greedy"] == text["drawn"]


@pytest.mark.parametrize("way", WAYS)
def test_a_token_that_the_model_does_not_have_fails_its_own_row_by_name(way: str) -> None:
    rows = [row("beyond", logit_bias={"3": 1.0, str(VOCABULARY): 1.0}), row("last", logit_bias={str(EOS): 1.0})]
    ends = run(tiny_engine(loaded("llama"), **WAYS[way]), rows).ends
    message = f"logit_bias: the model has no token {VOCABULARY}; its tokens are 0 to {EOS}"
    assert ends["beyond"].error == ("invalid_request", message)
    assert ends["last"].reason is not FinishReason.ERROR


@pytest.mark.parametrize("fields", [{"presence_penalty": 1.0}, {"repetition_penalty": 1.5}])
def test_a_model_s_own_repetition_penalty_gives_way_to_the_request_s_only(fields: dict[str, Any]) -> None:
    model = tiny_model("llama")
    model.generation_config.update(repetition_penalty=1.8)
    own = "repetition_penalty" in fields
    asked = row("a", PROMPTS[0], **(fields if own else fields | {"repetition_penalty": 1.8}))
    seen = run(tiny_engine(model), [row("a", PROMPTS[0], **fields)]).text
    assert seen == run(tiny_engine(loaded("llama")), [asked]).text


# The step's own arithmetic.


def chunk(prompt: list[int], generated: list[int], drafts: tuple[int, ...] = (), **fields: Any) -> Chunk:
    """The step after so many tokens."""
    sequence = SequenceState(row("a", **fields), prompt, 99, slot=0)
    sequence.counts = penalties.counts_for(sequence.row.request, prompt, VOCABULARY)
    sequence.bias = penalties.bias_for(sequence.row.request, VOCABULARY, torch.device("cpu"))
    for token in generated:
        sequence.append(token)
    return Chunk(sequence, len(prompt), len(prompt) + 1 + len(drafts), drafts)


def test_where_no_row_asks_for_anything_the_logits_are_left_as_they_are() -> None:
    logits = torch.randn(3, VOCABULARY, dtype=torch.bfloat16)
    assert penalties.apply(logits, [chunk([1], [2], (3, 4), min_p=0.5, temperature=1.0)]) is logits


def test_behind_a_draft_it_is_part_of_the_text() -> None:
    logits = torch.randn(5, VOCABULARY)
    chunks = [chunk([1, 2, 1], [7, 7, 2], (7, 9, 300), **STRONG), chunk([1], [])]
    given = penalties.apply(logits.clone(), chunks)
    for ahead, drafts in enumerate([[], [7], [7, 9], [7, 9]]):
        expected = edited(logits[ahead : ahead + 1], chunks[0].sequence.row.request, [1, 2, 1], [7, 7, 2, *drafts])
        torch.testing.assert_close(given[ahead : ahead + 1], expected)
    assert given[4].equal(logits[4])
    assert list(chunks[0].sequence.counts.counts) == [0, 1, 2], "the row itself has not gone on"


@pytest.mark.parametrize("generated", [[], [5]])
def test_what_is_not_finite_stays_so_and_what_is_forbidden_stays_forbidden(generated: list[int]) -> None:
    logits = torch.zeros(2, VOCABULARY, dtype=torch.float16)
    logits[0, 5], logits[1, 5] = torch.nan, -torch.inf
    chunks = [chunk([5], generated, **STRONG), chunk([5], generated, presence_penalty=-2.0, logit_bias={"5": 100})]
    assert choose(logits, chunks).tokens == [NOT_FINITE, 0]


def test_small_penalties_are_not_rounded_away() -> None:
    logits = torch.zeros(1, VOCABULARY, dtype=torch.bfloat16)
    logits[0, 3] = logits[0, 4] = 64.0
    assert choose(logits, [chunk([1], [3], presence_penalty=0.01)]).tokens == [4]
