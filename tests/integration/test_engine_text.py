"""From tokens to text and back on a whole engine, with tokenizers of the kinds that models bring."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gpu_worker.engines.base import FinishReason, RowEnd
from gpu_worker.engines.continuous.engine import ContinuousEngine
from tests.integration.engine_rows import row
from tests.integration.tiny_engines import CONTEXT, DEEP, Recorder
from tests.small_tokenizers import KINDS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


def engine_for(tokenizer: Any, **options: Any) -> ContinuousEngine:
    """A tiny model for the tokenizer's vocabulary, that gives whole words only: single bytes are no text."""
    torch.manual_seed(7)
    shape = {"vocab_size": len(tokenizer), "initializer_range": 0.5, "eos_token_id": tokenizer.eos_token_id}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **DEEP, **shape)).eval()
    texts = {id: tokenizer.decode([id]) for id in range(len(tokenizer))}
    model.generation_config.suppress_tokens = [id for id, text in texts.items() if "\ufffd" in text]
    model.generation_config.update(**options)
    return ContinuousEngine(model, tokenizer, slots=4, context=CONTEXT)


def generated(engine: ContinuousEngine, prompt: str = "Hello", **fields: Any) -> tuple[list[int], RowEnd]:
    """The tokens and the end of one row."""
    recorder = Recorder()
    recorder.watch(engine)
    engine.add([row("a", prompt, **fields)])
    while engine.live_rows():
        recorder.take(engine.step(0.0))
    return recorder.tokens.get("a", []), recorder.ends["a"]


@pytest.mark.parametrize("prompt", ["Hello", "how are you", "the answer is 42 "])
def test_a_text_goes_on_where_the_prompt_ends(tokenizer: Any, prompt: str) -> None:
    tokens, end = generated(engine_for(tokenizer), prompt)
    before = tokenizer(prompt)["input_ids"]
    whole = tokenizer.decode(before + tokens, skip_special_tokens=True)
    assert end.text == whole.removeprefix(tokenizer.decode(before, skip_special_tokens=True))


def test_a_stop_that_is_a_special_token_ends_its_row_alone(tokenizer: Any) -> None:
    sign = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = engine_for(tokenizer, begin_suppress_tokens=[sign], sequence_bias=[[[sign], 1e4]])
    tokens, end = generated(engine)
    assert (tokens[1:], end.reason) == ([sign] * 11, FinishReason.LENGTH), "the sign ends no other row"
    tokens, end = generated(engine, stop=["never", "<|im_end|>"])
    assert (len(tokens), end.reason, end.completion_tokens) == (1, FinishReason.STOP, 1)
    assert "<|im_end|>" not in end.text


@pytest.mark.parametrize("stop", ["<|im_end|>\n", "a</s>"])
def test_a_stop_with_a_special_token_in_it_is_refused(tokenizer: Any, stop: str) -> None:
    _, end = generated(engine_for(tokenizer), stop=["fine", stop])
    assert end.error is not None
    assert end.error[0] == "invalid_request"
    assert repr(stop) in end.error[1]
