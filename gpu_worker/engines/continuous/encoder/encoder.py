"""An encoder on its device: token ids of several rows in, their embeddings out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.encoder.embedder import Embedder
from gpu_worker.engines.continuous.encoder.pooling import pooled
from gpu_worker.engines.continuous.encoder.recipe import Recipe


class Encoder(Embedder):
    """A model with what makes an embedding of its hidden states. Rows are padded behind, to the longest one's length.

    Args:
        model: on its device, in its number format.
        longest: the most tokens of a row.

    Raises:
        EngineError: a row has another embedding in company than alone, or the longest one cannot be computed.
    """

    pads = True

    def __init__(self, model: PreTrainedModel, recipe: Recipe, longest: int) -> None:
        self._model: Any = model
        self._recipe = recipe
        table: Any = model.get_input_embeddings()
        padding = model.config.get_text_config().pad_token_id or 0
        super().__init__(len(table.weight), model.dtype, padding, longest)

    @property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        return self._model  # type: ignore[no-any-return]

    @torch.inference_mode()
    def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Embedder`."""
        columns = max(map(len, rows))
        ids = torch.tensor([[*row, *[self._padding] * (columns - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows])
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pooled(states, mask, self._recipe).cpu().tolist()
