"""Text from the tokens of real tokenizers, behind a prompt: what the decoding of both has more than the prompt's."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any

import pytest

from gpu_worker.engines.continuous.text.decoding import decode_of
from gpu_worker.engines.continuous.text.text_stream import Detokenizer, TextStream
from tests.small_tokenizers import KINDS

PROMPTS = ["Hello", "Hello ", "how are you\n", "東", "a 東京é", "42<|im_end|>", "é <|im_end|>\n<|im_start|>assistant\n"]
CONTINUATIONS = ["there", "there, how are", "é€", "東京 there\n\n  fine ", " the answer <|im_end|> is 42"]


@pytest.fixture(params=KINDS, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]()


@pytest.fixture
def decode(tokenizer: Any) -> Any:
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("continuation", CONTINUATIONS)
def test_it_is_what_the_whole_has_more_than_the_prompt(
    tokenizer: Any, decode: Any, prompt: str, continuation: str
) -> None:
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, continuation))
    detokenizer = Detokenizer(decode, set(tokenizer.all_special_ids), before)
    text = "".join(map(detokenizer.push, after)) + detokenizer.flush()
    assert text == decode(before + after).removeprefix(decode(before))


def test_the_first_words_space_is_kept_and_a_stop_string_with_it_is_found(tokenizer: Any, decode: Any) -> None:
    before = tokenizer("Hello")["input_ids"]
    after = tokenizer("Hello there", add_special_tokens=False)["input_ids"][len(before) :]
    assert "".join(map(Detokenizer(decode, prompt=before).push, after)) == " there"
    stream = TextStream(decode, stops=[" there"], prompt=before)
    assert [stream.push(token) for token in after][-1] == ""
    assert (stream.stopped, stream.text) == (True, "")


def test_a_prompt_of_special_tokens_leaves_the_beginning_to_the_tokenizer(tokenizer: Any, decode: Any) -> None:
    before, after = [tokenizer.bos_token_id], tokenizer("Hello there", add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(decode, set(tokenizer.all_special_ids), before)
    assert "".join(map(detokenizer.push, after)) == decode(before + after) == "Hello there"


def test_a_row_that_is_continued_takes_its_tokens_again(tokenizer: Any, decode: Any) -> None:
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Hello", "there 東京 fine"))
    whole = Detokenizer(decode, prompt=before)
    pieces = [whole.push(token) for token in after]
    for kept in range(len(after)):
        again = Detokenizer(decode, prompt=before)
        assert [again.push(token) for token in after[:kept]] == pieces[:kept]
        assert [again.push(token) for token in after[kept:]] == pieces[kept:]


def test_the_short_way_to_a_text_is_the_tokenizers_own(tokenizer: Any, decode: Any) -> None:
    """Random ids: unfinished characters, special tokens, bytes in a fallback."""
    rng, short = random.Random(5), decode_of(tokenizer)
    for _ in range(300):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randint(0, 12))]
        assert short(ids) == decode(ids)


def test_the_short_way_does_without_transformers_method(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tokenizer("Hello there", add_special_tokens=False)["input_ids"]
    short = decode_of(tokenizer)
    monkeypatch.setattr(type(tokenizer), "decode", None)
    assert short(ids) == "Hello there"


def test_a_class_that_decodes_in_its_own_way_is_asked(tokenizer: Any) -> None:
    class Own(type(tokenizer)):
        def _decode(self, *_: object, **__: object) -> str:
            return "its own"

    tokenizer = copy.copy(tokenizer)
    tokenizer.__class__ = Own
    assert decode_of(tokenizer)([1, 2]) == "its own"
