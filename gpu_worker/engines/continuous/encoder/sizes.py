"""How many numbers of an embedding a request may ask for. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from promptq.contract.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Sizes:
    """Those of one model. Where it was trained for it, the first numbers of an embedding are one of their own.

    Attributes:
        whole: the model's own.
        shorter: the others that its files list.
        any_shorter: whether every number below its own will do.
        unit: whether embeddings have the length 1; cut ones then have it too.
    """

    whole: int
    shorter: Sequence[int] = ()
    any_shorter: bool = False
    unit: bool = False

    @classmethod
    def of(cls, config: Any, whole: int, unit: bool) -> Self:
        """By `matryoshka_dimensions` or `is_matryoshka` of a model's config.json."""
        listed = sorted(size for size in getattr(config, "matryoshka_dimensions", None) or () if 0 < size < whole)
        return cls(whole, listed, not listed and bool(getattr(config, "is_matryoshka", False)), unit)

    def check(self, asked: int | None) -> None:
        """Refuse a size that the model does not have.

        Raises:
            InvalidRequest: names those that it has.
        """
        if asked is None or asked == self.whole or asked in self.shorter or (self.any_shorter and asked < self.whole):
            return
        raise InvalidRequest(f"dimensions: the model's embeddings have {self._said()}", param="dimensions")

    def cut(self, embedding: Sequence[float], asked: int | None) -> Sequence[float]:
        """The embedding at the size that was asked for, which the model has; None: as it is."""
        if asked is None or asked >= len(embedding):
            return embedding
        numbers = embedding[:asked]
        length = math.sqrt(math.fsum(number * number for number in numbers)) if self.unit else 1.0
        return [number / length for number in numbers] if length else numbers

    def _said(self) -> str:
        if self.any_shorter:
            return f"1 to {self.whole} numbers"
        return f"{', '.join(map(str, [*self.shorter, self.whole]))}, and no other number"
