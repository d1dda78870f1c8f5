"""What becomes of single rows: limits, stops, cancels, faults. A tiny random model; every other row must not notice."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.generation_config import end_tokens
from promptq.contract.request import GenerateRequest, Message
from tests.integration.engine_rows import intercept, row, run
from tests.integration.tiny_engines import (
    ALL_WAYS,
    CONTEXT,
    Recorder,
    byte_tokenizer,
    reference,
    tiny_engine,
    tiny_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["hello", "a somewhat longer prompt than that", "xyz", "the fourth one"]


@pytest.fixture
def model():
    return tiny_model("llama")


@pytest.fixture(params=ALL_WAYS)
def build(request):
    """Makes an engine, each way through the model."""
    return partial(tiny_engine, **ALL_WAYS[request.param])


def alone(model, prompt: str, max_tokens: int = 12) -> str:
    tokenizer = byte_tokenizer()
    eos = list(end_tokens(model, tokenizer))
    return tokenizer.decode(reference(model, tokenizer(prompt)["input_ids"], max_tokens, eos).tokens).rstrip("\ufffd")


def assert_right(model, recorder: Recorder, id: str, prompt: str) -> None:
    assert recorder.ends[id].reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert recorder.text[id] == recorder.ends[id].text == alone(model, prompt)


def test_a_prompt_too_long_fails_with_the_numbers(model, build):
    engine = build(model)
    recorder = run(engine, [row("long", "x" * CONTEXT), row("fits", "x" * (CONTEXT - 1)), row("good")])
    assert recorder.ends["long"].reason is FinishReason.ERROR
    kind, message = recorder.ends["long"].error
    assert kind == "prompt_too_long"
    assert message.count(str(CONTEXT)) == 2
    assert recorder.ends["fits"].completion_tokens == 1
    assert_right(model, recorder, "good", "hello")


def test_the_context_ends_a_row(model, build):
    recorder = run(build(model), [row("a", "x" * 60, max_tokens=1000)])
    finished = recorder.ends["a"]
    assert (finished.reason, finished.completion_tokens) == (FinishReason.LENGTH, CONTEXT - 60)
    assert finished.text == alone(model, "x" * 60, CONTEXT - 60)


def test_a_chat_without_a_template_fails(model, build):
    request = GenerateRequest(messages=[Message(role="user", content="hi")])
    recorder = run(build(model), [Row("a", request)])
    assert recorder.ends["a"].error[0] == "invalid_request"


def test_a_chat_that_its_template_refuses_fails(model, build):
    engine = build(model)
    engine._starts._prompts._tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    recorder = run(engine, [Row("a", GenerateRequest(messages=[Message(role="user", content="hi")])), row("good")])
    assert recorder.ends["a"].error[0] == "invalid_request"
    assert "roles must alternate" in recorder.ends["a"].error[1]
    assert_right(model, recorder, "good", "hello")


def test_a_stop_string_cuts_the_text(model, build):
    whole = alone(model, "hello")
    stop = whole[4:7]
    recorder = run(build(model), [row("a", stop=[stop]), row("b")])
    assert recorder.ends["a"].reason is FinishReason.STOP
    assert recorder.text["a"] == whole[: whole.index(stop)]
    assert_right(model, recorder, "b", "hello")


def test_cancel_and_deadline_keep_the_partial_text(model, build):
    engine = build(model)
    engine.add([row("c"), row("t", deadline=50.0), row("w", "late " * 10)])
    recorder = Recorder()
    for now in (0.0, 1.0, 2.0):
        recorder.take(engine.step(now))
    engine.cancel(["c", "nobody"])
    recorder.take(engine.step(50.0))
    assert recorder.ends["c"].reason is FinishReason.CANCELLED
    assert recorder.ends["t"].reason is FinishReason.TIMEOUT
    for id in "ct":
        assert 0 < recorder.ends[id].completion_tokens < 12
        assert alone(model, "hello").startswith(recorder.text[id])
        assert recorder.text[id] == recorder.ends[id].text
    while engine.live_rows():
        recorder.take(engine.step(51.0))
    assert_right(model, recorder, "w", "late " * 10)


def test_a_seed_gives_the_same_text_in_any_company(model, build):
    def drawn(seed: int) -> Row:
        return row(f"drawn-{seed}", temperature=1.0, top_p=0.9, seed=seed)

    single = run(build(model), [drawn(5)]).text["drawn-5"]
    crowd = [row("g"), row("k", temperature=2.0, top_k=3), drawn(6), drawn(5)]
    recorder = run(build(model, prefill_tokens=7), crowd)
    assert recorder.text["drawn-5"] == single != recorder.text["drawn-6"]
    assert_right(model, recorder, "g", "hello")


def test_rows_close_up_when_one_before_them_has_ended(model, build):
    engine, width = build(model, prefill_tokens=200, layout="slots"), []
    intercept(engine, lambda chunks: width.append(max(chunk.slot for chunk in chunks) + 1))
    recorder = run(engine, [row("a", max_tokens=2), row("b", max_tokens=3), row("c", PROMPTS[1]), row("d", PROMPTS[2])])
    assert width[:4] == [4, 4, 3, 2]
    assert_right(model, recorder, "c", PROMPTS[1])
    assert_right(model, recorder, "d", PROMPTS[2])


def test_memory_for_two_rows_at_a_time_still_serves_four(model, build):
    """Out of memory in a step: the rows are halved until they fit."""

    def scarce(chunks):
        if len(chunks) > 2:
            raise torch.OutOfMemoryError("no memory")

    engine = build(model, prefill_tokens=200)
    intercept(engine, scarce)
    recorder = run(engine, [row(str(index), prompt) for index, prompt in enumerate(PROMPTS)])
    for index, prompt in enumerate(PROMPTS):
        assert_right(model, recorder, str(index), prompt)


def test_a_row_that_breaks_the_model_fails_alone(model, build):
    bad = byte_tokenizer()("~")["input_ids"][0]

    def touchy(chunks):
        if any(bad in chunk.tokens for chunk in chunks):
            raise RuntimeError("bad token")

    engine = build(model, prefill_tokens=200)
    intercept(engine, touchy)
    recorder = run(engine, [row("bad", "hello ~"), *(row(prompt, prompt) for prompt in PROMPTS[:3])])
    assert recorder.ends["bad"].error == ("engine_error", "RuntimeError: bad token")
    for prompt in PROMPTS[:3]:
        assert_right(model, recorder, prompt, prompt)


def test_nan_in_a_prompt_fails_that_row_and_its_slot_serves_again(model, build):
    """Prompts are computed in one line, where a NaN would spoil its neighbours."""
    bad = byte_tokenizer()("~")["input_ids"][0]
    healthy = model.get_input_embeddings().weight.data[bad].clone()
    engine = build(model, prefill_tokens=200)
    model.get_input_embeddings().weight.data[bad] = math.nan
    recorder = run(engine, [row("bad", "hello ~"), *(row(prompt, prompt) for prompt in PROMPTS[:3])])
    assert recorder.ends["bad"].error[0] == "engine_error"
    for prompt in PROMPTS[:3]:
        assert_right(model, recorder, prompt, prompt)
    model.get_input_embeddings().weight.data[bad] = healthy
    recorder = run(engine, [row(prompt, prompt) for prompt in PROMPTS])
    for prompt in PROMPTS:
        assert_right(model, recorder, prompt, prompt)


def test_nan_in_a_prompt_that_is_cancelled_half_way_leaves_no_trace(model, build):
    bad = byte_tokenizer()("~")["input_ids"][0]
    healthy = model.get_input_embeddings().weight.data[bad].clone()
    engine = build(model, slots=1, prefill_tokens=20)
    model.get_input_embeddings().weight.data[bad] = math.nan
    engine.add([row("bad", "~" * 60)])
    engine.step(0.0)
    engine.cancel(["bad"])
    engine.step(0.0)
    model.get_input_embeddings().weight.data[bad] = healthy
    assert_right(model, run(engine, [row("good")]), "good", "hello")


def test_nan_while_decoding_fails_that_row_and_its_slot_serves_again(model, build):
    engine = build(model, prefill_tokens=200)
    recorder = Recorder()
    engine.add([row(prompt, prompt) for prompt in PROMPTS])
    recorder.take(engine.step(0.0))
    second = engine._scheduler.live[1]
    keys, _ = engine._runner.cache.read(0, second.slot, 1, second.most_tokens)
    keys.fill_(math.nan)
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    assert recorder.ends[PROMPTS[1]].error[0] == "engine_error"
    for prompt in (PROMPTS[0], *PROMPTS[2:]):
        assert_right(model, recorder, prompt, prompt)
    recorder = run(engine, [row(prompt, prompt) for prompt in PROMPTS])
    for prompt in PROMPTS:
        assert_right(model, recorder, prompt, prompt)


def test_a_decoder_that_raises_fails_the_row_and_not_the_step(model, build):
    engine = build(model)
    engine.add([row("bad"), row("good")])

    def broken(ids):
        raise ValueError("no such token")

    engine._texts["bad"]._detokenizer._decode = broken
    recorder = Recorder()
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    assert recorder.ends["bad"].error == ("engine_error", "ValueError: no such token")
    assert_right(model, recorder, "good", "hello")


def test_batch_size_counts_the_rows_that_shared_a_step(model, build):
    """A row that ends with its first token shared that step too."""
    recorder = run(build(model, prefill_tokens=5), [row("short", max_tokens=1), row("a"), row("b", "x" * CONTEXT)])
    assert {id: finished.batch_size for id, finished in recorder.ends.items()} == {"short": 2, "a": 2, "b": 0}


def test_stats_and_events_add_up(model, build):
    engine = build(model, prefill_tokens=8)
    engine.add([row(prompt, prompt) for prompt in PROMPTS])
    tokens = prefilled = 0
    while engine.live_rows():
        result = engine.step(0.0)
        tokens += sum(event.tokens for event in result.events)
        assert result.stats.prefill_tokens <= 8
        prefilled += result.stats.prefill_tokens
    assert prefilled == sum(map(len, PROMPTS))
    assert tokens <= 4 * 12
    assert engine.free_slots() == 4


def test_a_row_s_end_says_how_much_of_its_prompt_was_in_memory(model, build):
    engine, prompt = build(model), "the same beginning of a prompt, and then "
    run(engine, [row("first", prompt + "one")])
    again, other = (run(engine, [row(id, text)]).ends[id] for id, text in (("a", prompt + "two"), ("b", "unheard of")))
    assert len(prompt) <= again.reused_tokens < again.prompt_tokens
    assert other.reused_tokens == 0
