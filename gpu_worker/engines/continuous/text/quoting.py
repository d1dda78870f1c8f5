"""Chats in which a turn's content has a special token's text in it, say `<|im_end|>`: there it is text, no token."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from promptq.contract.errors import InvalidRequest

Render = Callable[[Sequence[str]], str]
"""The chat template's text for the contents of its turns."""
BAR = "\ue000"
MARKS = range(0xE001, 0xF900)
"""With the bar, characters without a meaning (Unicode's private use), which templates pass on as they are."""


class Quoting:
    """A copy of a tokenizer in which the special tokens have names that nobody can know, so that their texts are text.

    So a whole chat is encoded in one go, and all of it but the quoted texts comes out as it does without them.

    Args:
        tokenizer: a fast one.
        special: its special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: SpecialTokens) -> None:
        self._special = special
        secret = secrets.token_hex(16)
        self._names = {text: f"{BAR}{secret}-{id}{BAR}" for text, id in special.ids.items()}
        self._tokenizer = _renamed(tokenizer.backend_tokenizer, self._names)

    def encode(self, render: Render, contents: Sequence[str]) -> list[int]:
        """Token ids of a chat.

        Raises:
            InvalidRequest: the template takes a quoted text apart.
        """
        mark = next(chr(code) for code in MARKS if not any(chr(code) in content for content in contents))
        texts = list(self._special.ids)
        places = {text: f"{mark}{place}{mark}" for place, text in enumerate(texts)}
        rendered = render([self._special.replace(content, places) for content in contents])
        named = self._special.replace(rendered, self._names)
        whole = re.sub(f"{mark}([0-9]+){mark}", lambda found: texts[int(found[1])], named)
        if mark in whole:
            message = "a content has a special token's text in it, which the model's chat template takes apart"
            raise InvalidRequest(message, param="messages")
        return list(self._tokenizer.encode(whole, add_special_tokens=False).ids)


def _renamed(tokenizer: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy of the tokenizer with other names for some tokens, whose ids stay the same.

    They are renamed in the vocabulary too, and no merge leads to them: by either their text may come to be the token.
    """
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    if model["type"] == "Unigram":
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(text, text): id for text, id in model["vocab"].items()}
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & names.keys()]
    # They add tokens around a whole prompt, by their old names.
    return Tokenizer.from_str(json.dumps(state | {"post_processor": None, "truncation": None, "padding": None}))
