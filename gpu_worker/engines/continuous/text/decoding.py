"""From token ids to text, as a model's tokenizer has it."""

from __future__ import annotations

from functools import partial

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gpu_worker.engines.continuous.text.text_stream import Decode


def decode_of(tokenizer: PreTrainedTokenizerBase) -> Decode:
    """The tokenizer's decoding, special tokens left out and spaces as they are.

    Each token is decoded twice, and transformers' method takes many times as long as that of the library `tokenizers`,
    which it calls. So that is called at once, unless the tokenizer has none, or its class decodes in a way of its own.
    """
    kind = type(tokenizer)
    if isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name) for name in ("decode", "_decode")
    ):
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(  # type: ignore[return-value]  # a str for a list of ids
        tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
