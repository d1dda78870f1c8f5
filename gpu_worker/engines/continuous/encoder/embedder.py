"""What turns token ids into embeddings, whoever computes: known to give a row in company what it gives alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import torch

from promptq.contract.errors import EngineBroken, EngineError

TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""How far a row's numbers may be from those that it has alone, as a share of the largest."""


class Embedder(ABC):
    """Token ids of several rows in, their embeddings out. One is made with `embed` ready to be called.

    Args:
        vocabulary: how many tokens the model knows.
        dtype: of its weights.
        padding: the id that no probe has.
        longest: the most tokens that are computed beside a probe.

    Attributes:
        pads: whether the rows of a step are filled up to the longest one's length.

    Raises:
        EngineError: a row has another embedding in company than alone, or the longest one cannot be computed.
    """

    pads = False

    def __init__(self, vocabulary: int, dtype: torch.dtype, padding: int, longest: int) -> None:
        self.vocabulary = vocabulary
        self._tolerance = TOLERANCE[dtype]
        self._padding = padding
        self._known = self._check(longest)

    @abstractmethod
    def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The embedding of each row, given its token ids; of a row at fault they are no finite numbers.

        Raises:
            EngineBroken: nothing can be computed any more. Any other exception may be one row's fault.
        """

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        return len(self._known)

    def trouble(self) -> str:
        """What is wrong with the model or its device, when rows fail; an empty string: nothing."""
        try:
            (now,) = self.embed([self._probe(8)])
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return "" if self._is_near(now, self._known) else "the model no longer computes what it did when it was loaded"

    def close(self) -> None:  # noqa: B027  # few hold anything
        """Let go of what would outlive this process."""

    def _check(self, longest: int) -> list[float]:
        """Compute a row alone, and beside one of the greatest length; return its embedding."""
        probe = self._probe(min(8, longest))
        try:
            (alone,) = self.embed([probe])
            beside, _ = self.embed([probe, self._probe(longest)])
        except (RuntimeError, ValueError, IndexError, TypeError, EngineBroken) as error:
            raise EngineError(f"the model cannot embed {longest} tokens: {error}") from error
        if not self._is_near(beside, alone):
            raise EngineError("the model gives a prompt another embedding in company than alone: it cannot be batched")
        return alone

    def _probe(self, length: int) -> list[int]:
        """Token ids that are not all alike, and none of them the padding."""
        ids = [at % self.vocabulary for at in range(5, 5 + length)]
        return [(self._padding + 1) % self.vocabulary if token == self._padding else token for token in ids]

    def _is_near(self, one: Sequence[float], other: Sequence[float]) -> bool:
        wanted = torch.tensor(other)
        tolerance = self._tolerance * float(wanted.abs().max())
        return torch.allclose(torch.tensor(one), wanted, rtol=0.0, atol=tolerance)
