"""What becomes of single rows: limits, stops, cancels, faults. A tiny random model; every other row must not notice."""

from __future__ import annotations

import math

import pytest
import torch

from gpu_worker.engine.base import FinishReason, Row
from gpu_worker.engine.transformers_engine import end_tokens
from promptq.request import GenerateRequest, Message
from tests.integration.test_engine_parity import CONTEXT, Recorder, byte_tokenizer, reference, tiny_engine, tiny_model

PROMPTS = ["hello", "a somewhat longer prompt than that", "xyz", "the fourth one"]


@pytest.fixture
def model():
    return tiny_model("llama")


def row(id: str, prompt: str = "hello", deadline: float | None = None, **fields) -> Row:
    return Row(id, GenerateRequest(prompt=prompt, **({"max_tokens": 12} | fields)), deadline=deadline)


def run(engine, rows: list[Row], now: float = 0.0) -> Recorder:
    recorder = Recorder()
    engine.add(rows)
    while engine.live_rows():
        recorder.take(engine.step(now))
    return recorder


def alone(model, prompt: str, max_tokens: int = 12) -> str:
    tokenizer = byte_tokenizer()
    eos = list(end_tokens(model, tokenizer))
    return tokenizer.decode(reference(model, tokenizer(prompt)["input_ids"], max_tokens, eos).tokens).rstrip("\ufffd")


def assert_right(model, recorder: Recorder, id: str, prompt: str) -> None:
    assert recorder.finished[id].reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert recorder.text[id] == recorder.finished[id].text == alone(model, prompt)


def test_a_prompt_too_long_fails_with_the_numbers(model):
    engine = tiny_engine(model)
    recorder = run(engine, [row("long", "x" * CONTEXT), row("fits", "x" * (CONTEXT - 1)), row("good")])
    assert recorder.finished["long"].reason is FinishReason.ERROR
    kind, message = recorder.finished["long"].error
    assert kind == "prompt_too_long"
    assert message.count(str(CONTEXT)) == 2
    assert recorder.finished["fits"].completion_tokens == 1
    assert_right(model, recorder, "good", "hello")


def test_the_context_ends_a_row(model):
    recorder = run(tiny_engine(model), [row("a", "x" * 60, max_tokens=1000)])
    finished = recorder.finished["a"]
    assert (finished.reason, finished.completion_tokens) == (FinishReason.LENGTH, CONTEXT - 60)
    assert finished.text == alone(model, "x" * 60, CONTEXT - 60)


def test_a_chat_without_a_template_fails(model):
    request = GenerateRequest(messages=[Message(role="user", content="hi")])
    recorder = run(tiny_engine(model), [Row("a", request)])
    assert recorder.finished["a"].error[0] == "invalid_request"


def test_a_chat_that_its_template_refuses_fails(model):
    engine = tiny_engine(model)
    engine._tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    recorder = run(engine, [Row("a", GenerateRequest(messages=[Message(role="user", content="hi")])), row("good")])
    assert recorder.finished["a"].error[0] == "invalid_request"
    assert "roles must alternate" in recorder.finished["a"].error[1]
    assert_right(model, recorder, "good", "hello")


def test_a_stop_string_cuts_the_text(model):
    whole = alone(model, "hello")
    stop = whole[4:7]
    recorder = run(tiny_engine(model), [row("a", stop=[stop]), row("b")])
    assert recorder.finished["a"].reason is FinishReason.STOP
    assert recorder.text["a"] == whole[: whole.index(stop)]
    assert_right(model, recorder, "b", "hello")


def test_cancel_and_deadline_keep_the_partial_text(model):
    engine = tiny_engine(model)
    engine.add([row("c"), row("t", deadline=50.0), row("w", "late " * 10)])
    recorder = Recorder()
    for now in (0.0, 1.0, 2.0):
        recorder.take(engine.step(now))
    engine.cancel(["c", "nobody"])
    recorder.take(engine.step(50.0))
    assert recorder.finished["c"].reason is FinishReason.CANCELLED
    assert recorder.finished["t"].reason is FinishReason.TIMEOUT
    for id in "ct":
        assert 0 < recorder.finished[id].completion_tokens < 12
        assert alone(model, "hello").startswith(recorder.text[id])
        assert recorder.text[id] == recorder.finished[id].text
    while engine.live_rows():
        recorder.take(engine.step(51.0))
    assert_right(model, recorder, "w", "late " * 10)


def test_a_seed_gives_the_same_text_in_any_company(model):
    def drawn(seed: int) -> Row:
        return row(f"drawn-{seed}", temperature=1.0, top_p=0.9, seed=seed)

    single = run(tiny_engine(model), [drawn(5)]).text["drawn-5"]
    crowd = [row("g"), row("k", temperature=2.0, top_k=3), drawn(6), drawn(5)]
    recorder = run(tiny_engine(model, prefill_tokens=7), crowd)
    assert recorder.text["drawn-5"] == single != recorder.text["drawn-6"]
    assert_right(model, recorder, "g", "hello")


def test_memory_for_two_rows_at_a_time_still_serves_four(model):
    """Out of memory in a step: the rows are halved until they fit."""
    forward = model.forward

    def scarce(input_ids, **kwargs):
        if input_ids.shape[0] > 2 or input_ids.shape[1] > 40:
            raise torch.OutOfMemoryError("no memory")
        return forward(input_ids=input_ids, **kwargs)

    engine = tiny_engine(model, prefill_tokens=200)
    model.forward = scarce
    recorder = run(engine, [row(str(index), prompt) for index, prompt in enumerate(PROMPTS)])
    model.forward = forward
    for index, prompt in enumerate(PROMPTS):
        assert_right(model, recorder, str(index), prompt)
        assert recorder.finished[str(index)].batch_size <= 2


def test_a_row_that_breaks_the_model_fails_alone(model):
    forward = model.forward
    bad = byte_tokenizer()("~")["input_ids"][0]

    def touchy(input_ids, **kwargs):
        if (input_ids == bad).any():
            raise RuntimeError("bad token")
        return forward(input_ids=input_ids, **kwargs)

    engine = tiny_engine(model, prefill_tokens=200)
    model.forward = touchy
    recorder = run(engine, [row("bad", "hello ~"), *(row(prompt, prompt) for prompt in PROMPTS[:3])])
    model.forward = forward
    assert recorder.finished["bad"].error == ("engine_error", "RuntimeError: bad token")
    for prompt in PROMPTS[:3]:
        assert_right(model, recorder, prompt, prompt)


def test_nan_in_a_prompt_fails_that_row_and_its_slot_serves_again(model):
    """Prompts are computed in one line, where a NaN would spoil its neighbours."""
    bad = byte_tokenizer()("~")["input_ids"][0]
    healthy = model.get_input_embeddings().weight.data[bad].clone()
    engine = tiny_engine(model, prefill_tokens=200)
    model.get_input_embeddings().weight.data[bad] = math.nan
    recorder = run(engine, [row("bad", "hello ~"), *(row(prompt, prompt) for prompt in PROMPTS[:3])])
    assert recorder.finished["bad"].error[0] == "engine_error"
    for prompt in PROMPTS[:3]:
        assert_right(model, recorder, prompt, prompt)
    model.get_input_embeddings().weight.data[bad] = healthy
    recorder = run(engine, [row(prompt, prompt) for prompt in PROMPTS])
    for prompt in PROMPTS:
        assert_right(model, recorder, prompt, prompt)


def test_nan_in_a_prompt_that_is_cancelled_half_way_leaves_no_trace(model):
    bad = byte_tokenizer()("~")["input_ids"][0]
    healthy = model.get_input_embeddings().weight.data[bad].clone()
    engine = tiny_engine(model, slots=1, prefill_tokens=20)
    model.get_input_embeddings().weight.data[bad] = math.nan
    engine.add([row("bad", "~" * 60)])
    engine.step(0.0)
    engine.cancel(["bad"])
    engine.step(0.0)
    model.get_input_embeddings().weight.data[bad] = healthy
    assert_right(model, run(engine, [row("good")]), "good", "hello")


def test_nan_while_decoding_fails_that_row_and_its_slot_serves_again(model):
    engine = tiny_engine(model, prefill_tokens=200)
    recorder = Recorder()
    engine.add([row(prompt, prompt) for prompt in PROMPTS])
    recorder.take(engine.step(0.0))
    engine._runner.cache.layers[0].keys[1].fill_(math.nan)
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    assert recorder.finished[PROMPTS[1]].error[0] == "engine_error"
    for prompt in (PROMPTS[0], *PROMPTS[2:]):
        assert_right(model, recorder, prompt, prompt)
    recorder = run(engine, [row(prompt, prompt) for prompt in PROMPTS])
    for prompt in PROMPTS:
        assert_right(model, recorder, prompt, prompt)


def test_a_decoder_that_raises_fails_the_row_and_not_the_step(model):
    engine = tiny_engine(model)
    engine.add([row("bad"), row("good")])

    def broken(ids):
        raise ValueError("no such token")

    engine._texts["bad"]._detokenizer._decode = broken
    recorder = Recorder()
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    assert recorder.finished["bad"].error == ("engine_error", "ValueError: no such token")
    assert_right(model, recorder, "good", "hello")


@pytest.mark.parametrize(("batching", "first"), [("static", 4), ("off", 1)])
def test_other_ways_of_batching(model, batching, first):
    engine = tiny_engine(model, batching=batching)
    assert engine.free_slots() == first
    engine.add([row("a")])
    assert engine.free_slots() == 0
    with pytest.raises(ValueError, match="free slots"):
        engine.add([row("b")])
    assert_right(model, run(engine, []), "a", "hello")
    assert engine.free_slots() == first


def test_stats_and_events_add_up(model):
    engine = tiny_engine(model, prefill_tokens=8)
    engine.add([row(prompt, prompt) for prompt in PROMPTS])
    tokens = prefilled = 0
    while engine.live_rows():
        tokens += sum(event.tokens for event in engine.step(0.0))
        assert engine.stats.prefill_tokens <= 8
        prefilled += engine.stats.prefill_tokens
    assert prefilled == sum(map(len, PROMPTS))
    assert tokens <= 4 * 12
    assert engine.free_slots() == 4
