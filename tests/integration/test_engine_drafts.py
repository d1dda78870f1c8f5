"""Drafts: fewer passes over a model, and never another text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.integration.engine_rows import intercept, row, run
from tests.integration.tiny_engines import Recorder, byte_tokenizer, round_model, tiny_engine

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model():
    """It goes round through "abcde", whatever came before."""
    return round_model()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_save_steps_and_change_nothing(model, temperature):
    rows = [row(str(seed), "abc", max_tokens=30, temperature=temperature, seed=seed) for seed in range(2)]
    passes: dict[bool, list[Any]] = {True: [], False: []}
    texts = []
    for drafts in (True, False):
        engine = tiny_engine(model, drafts=drafts)
        intercept(engine, passes[drafts].append)
        recorder = run(engine, rows)
        assert {finished.completion_tokens for finished in recorder.ends.values()} == {30}
        assert (recorder.right_drafts > 0) == drafts
        texts.append(recorder.text)
    assert texts[0] == texts[1]
    assert (texts[0]["0"] == ("deabc" * 6)) == (temperature == 0)
    assert len(passes[True]) < 28 < len(passes[False]) == 30


def test_a_stop_string_among_drafts_ends_the_row_there(model):
    engine, given = tiny_engine(model), []
    intercept(engine, lambda chunks: given.append(chunks[0].gives))
    recorder = run(engine, [row("a", "abcdeabc", max_tokens=30, stop=["eab"])])
    assert (recorder.text["a"], recorder.ends["a"].completion_tokens) == ("d", 4)
    assert given[-1] > 3
    assert engine.free_slots() == 4


def test_nan_behind_a_wrong_guess_fails_the_row_and_leaves_no_trace(model):
    broken = byte_tokenizer()("z")["input_ids"]
    model.model.embed_tokens.weight.data[broken] = math.nan
    engine = tiny_engine(model, slots=1)
    engine.add([row("a", "abc", max_tokens=30)])
    engine._scheduler.live[0].drafter.guess = lambda count: broken * count  # type: ignore[method-assign]
    recorder = Recorder()
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    assert recorder.ends["a"].error == ("engine_error", "the model's output is not a finite number")
    assert run(engine, [row("b", "abc", max_tokens=30)]).text["b"] == "deabc" * 6
