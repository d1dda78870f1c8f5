"""Tokens that are signs and no text: where a turn begins, where a text ends. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from promptq.contract.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of one model.

    Attributes:
        ids: by what they are written as.
    """

    ids: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Those that a tokenizer of transformers leaves out of texts."""
        return cls({token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special})

    def ends(self, stops: Iterable[str]) -> set[int]:
        """The tokens among stop strings. A text has none of them, so the string alone would never be found.

        Raises:
            InvalidRequest: a stop string has a special token and more, and could not be found either.
        """
        for stop in stops:
            for text in self.ids:
                if text in stop and stop not in self.ids:
                    message = f"{stop!r} has the special token {text!r} in it, which no text has: give it alone"
                    raise InvalidRequest(message, param="stop")
        return {self.ids[stop] for stop in stops if stop in self.ids}
