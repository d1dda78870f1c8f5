"""Tokens that are signs and no text: where a turn begins, where a text ends. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from promptq.contract.errors import InvalidRequest


class SpecialTokens:
    """The special tokens of one model.

    Args:
        ids: by what they are written as.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = ids
        # Of two that begin alike the longer one is the token, as tokenizers have it.
        longest_first = sorted(ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Those that a tokenizer of transformers leaves out of texts."""
        return cls({token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special})

    def is_in(self, text: str) -> bool:
        """Whether the text has one in it."""
        return self._pattern.search(text) is not None

    def replace(self, text: str, others: Mapping[str, str]) -> str:
        """The text with others in place of them."""
        return self._pattern.sub(lambda found: others[found[0]], text)

    def ends(self, stops: Iterable[str]) -> set[int]:
        """The tokens among stop strings. A text has none of them, so the string alone would never be found.

        Raises:
            InvalidRequest: a stop string has a special token and more, and could not be found either.
        """
        signs = [stop for stop in stops if self.is_in(stop)]
        for stop in signs:
            if stop not in self.ids:
                message = f"{stop!r} has a special token in it, and no text has: give it alone"
                raise InvalidRequest(message, param="stop")
        return {self.ids[stop] for stop in signs}
