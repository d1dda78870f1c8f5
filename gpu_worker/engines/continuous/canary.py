"""One token whose logits are known: whether the model still computes what it did when it was loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

TOKEN = 0
# As a share of the logits; a device that is sound gives nearly the same numbers each time.
TOLERANCE = 0.05


class Canary:
    """Computed when a row has failed alone: if it fails too, it was not the row."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._known = self._logits()

    @property
    def vocabulary(self) -> int:
        """How many tokens the logits have; more, with some models, than the tokenizer."""
        return self._known.shape[-1]

    @property
    def sizes(self) -> tuple[int, int]:
        """How many tokens the logits have, and how many the model can be given."""
        return self.vocabulary, len(self._model.get_input_embeddings().weight)

    def trouble(self) -> str:
        """What is wrong with the engine; an empty string: nothing."""
        try:
            logits = self._logits()
        except Exception as error:
            return f"{type(error).__name__}: {error}".splitlines()[0]
        scale = self._known.abs().nan_to_num(posinf=0.0).max()
        if torch.allclose(logits, self._known, rtol=0.0, atol=TOLERANCE * float(scale), equal_nan=True):
            return ""
        return "the model no longer computes what it did when it was loaded"

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        ids = torch.full((1, 1), TOKEN, dtype=torch.long, device=self._model.device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits.float().cpu()
