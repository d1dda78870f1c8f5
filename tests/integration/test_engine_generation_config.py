"""What a model's generation config says is followed as `generate` follows it, or the model is refused."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from gpu_worker.engines.continuous.generation_config import REFUSED
from promptq.contract.errors import EngineError
from tests.integration.engine_rows import row
from tests.integration.tiny_engines import (
    EOS,
    WAYS,
    Recorder,
    Reference,
    byte_tokenizer,
    reference,
    round_model,
    same,
    tiny_engine,
    tiny_model,
)

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ["abcabcabc", "the same again, the same again, the", "x", "1, 2, 3, 1, 2, 3, 1,"]
TOKENS = 24
# One whose texts are all different, and one that repeats itself, so that rows guess ahead.
MODELS = {"random": lambda: tiny_model("llama"), "round": round_model}
OPTIONS: dict[str, dict[str, Any]] = {
    "repetition_penalty": {"repetition_penalty": 1.8},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "suppress_tokens": {"suppress_tokens": list(range(100))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(200))},
    "bad_words_ids": {"bad_words_ids": [[id] for id in range(100, 180)] + [[97, 98], [1, 2, 3]]},
    "sequence_bias": {"sequence_bias": [[[id], 4.0] for id in range(90, 99)]},
    "forced_bos_token_id": {"forced_bos_token_id": 77},
    "forced_eos_token_id": {"forced_eos_token_id": EOS},
    "min_new_tokens": {"eos_token_id": list(range(0, 256, 3)), "min_new_tokens": 12},
    "min_length": {"eos_token_id": list(range(0, 256, 3)), "min_length": 18},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [4, 1.5]},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 2.0},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "several": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "suppress_tokens": [5, 6, 7], "min_length": 9},
}


def configured(name: str = "random", **options: Any) -> Any:
    model = MODELS[name]()
    model.generation_config.update(**options)
    return model


def generated(engine: Any, **fields: Any) -> Recorder:
    """Each prompt's tokens."""
    recorder = Recorder()
    recorder.watch(engine)
    engine.add([row(prompt, prompt, max_tokens=TOKENS, **fields) for prompt in PROMPTS])
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    return recorder


@cache
def wanted(name: str, options: str, prompt: str) -> Reference:
    """What `generate` makes of a prompt; without a name of options, under none."""
    model = configured(name, **OPTIONS.get(options, {}))
    ends = model.generation_config.eos_token_id
    ids = byte_tokenizer()(prompt)["input_ids"]
    return reference(model, ids, TOKENS, [*ends, EOS] if isinstance(ends, list) else [EOS])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_followed_as_generate_does(options: str, model: str, way: str) -> None:
    seen = generated(tiny_engine(configured(model, **OPTIONS[options]), **WAYS[way]))
    alike = [same(seen.tokens.get(prompt, []), wanted(model, options, prompt)) for prompt in PROMPTS]
    assert sum(alike) >= len(PROMPTS) - 1


@pytest.mark.parametrize("options", OPTIONS)
def test_each_of_them_changes_a_text(options: str) -> None:
    """Or the test above would show nothing."""
    assert any(
        wanted(model, options, prompt).tokens != wanted(model, "", prompt).tokens
        for model in MODELS
        for prompt in [*PROMPTS, "a"]
    )


def test_right_guesses_stand_under_it() -> None:
    assert generated(tiny_engine(configured("round", suppress_tokens=[5]))).right_drafts > 0


def test_drawn_texts_follow_it_too() -> None:
    forbidden = set(range(0, 256, 2))
    model = configured(suppress_tokens=sorted(forbidden))
    seen = generated(tiny_engine(model), temperature=1.5, seed=1)
    assert all(not forbidden & set(tokens) for tokens in seen.tokens.values())


def test_a_model_without_such_options_has_no_processors() -> None:
    engine = tiny_engine(configured(temperature=0.3, top_p=0.5, do_sample=True, max_length=20, repetition_penalty=1.0))
    engine.add([row("a")])
    (sequence,) = engine._scheduler.live
    assert sequence.processors is None


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "top_k": 3, "min_p": 0.2, "typical_p": 0.4},
        {"max_length": 3},
        {"max_new_tokens": 2, "max_time": 0.001},
        {"bos_token_id": 7, "pad_token_id": None, "decoder_start_token_id": 9},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_return_sequences": 3, "do_sample": True},
        {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
        {"prompt_lookup_num_tokens": 3},
    ],
)
def test_what_requests_say_and_what_is_not_of_the_text_does_not_count(options: dict[str, Any]) -> None:
    """Nor does it keep the model from being compared with `generate`."""
    plain = generated(tiny_engine(tiny_model("llama")))
    assert generated(tiny_engine(configured(**options))).tokens == plain.tokens


def test_its_stop_strings_end_every_text() -> None:
    plain = generated(tiny_engine(tiny_model("llama"))).text
    stop = next(text[3:5] for text in plain.values() if len(text) > 5)
    seen = generated(tiny_engine(configured(stop_strings=[stop]))).text
    assert seen == {prompt: text.split(stop)[0] for prompt, text in plain.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(name: str) -> None:
    model = tiny_model("llama")
    setattr(model.generation_config, name, 2)
    with pytest.raises(EngineError, match=rf"^generation_config.json: .*{name}=2"):
        tiny_engine(model)


def test_a_value_that_makes_no_sense_is_one_line() -> None:
    model = tiny_model("llama")
    model.generation_config.repetition_penalty = -1.0
    with pytest.raises(EngineError, match=r"generation_config.json cannot be followed: .*penalty") as caught:
        tiny_engine(model)
    assert "\n" not in caught.value.message
