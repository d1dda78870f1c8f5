"""An encoder on its device: token ids of several rows in, their embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.encoder.pooling import pooled
from gpu_worker.engines.continuous.encoder.recipe import Recipe
from promptq.contract.errors import EngineError

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""How far a row's numbers may be from those that it has alone, as a share of the largest."""


class Encoder:
    """A model with what makes an embedding of its hidden states. Rows are padded behind, to the longest one's length.

    Attributes:
        vocabulary: how many tokens it knows.

    Args:
        model: on its device, in its number format.
        longest: the most tokens of a row.

    Raises:
        EngineError: a row has another embedding in company than alone, or the longest one cannot be computed.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe, longest: int) -> None:
        self._model: Any = model
        self._recipe = recipe
        self._padding = model.config.get_text_config().pad_token_id or 0
        table: Any = model.get_input_embeddings()
        self.vocabulary = len(table.weight)
        self._known = self._check(longest)

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        return len(self._known)

    @property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        return self._model  # type: ignore[no-any-return]

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The embedding of each row, given its token ids; of a row at fault they are no finite numbers."""
        columns = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._padding] * (columns - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows])
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pooled(states, mask, self._recipe).cpu().tolist()

    def trouble(self) -> str:
        """What is wrong with the model or its device, when rows fail; an empty string: nothing."""
        try:
            (now,) = self.embed([self._probe(8)])
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return "" if self._is_near(now, self._known) else "the model no longer computes what it did when it was loaded"

    def _check(self, longest: int) -> list[float]:
        """Compute a row alone, and beside one of the greatest length; return its embedding."""
        probe = self._probe(min(8, longest))
        try:
            (alone,) = self.embed([probe])
            beside, _ = self.embed([probe, self._probe(longest)])
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
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
        tolerance = TOLERANCE[self._model.dtype] * float(wanted.abs().max())
        return torch.allclose(torch.tensor(one), wanted, rtol=0.0, atol=tolerance)
