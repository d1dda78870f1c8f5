"""From the hidden states of a batch to one vector a row, in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gpu_worker.engines.continuous.encoder.recipe import PoolingMode, Recipe


def pooled(states: Tensor, mask: Tensor, recipe: Recipe) -> Tensor:
    """Embeddings [rows, size].

    Args:
        states: the last hidden states [rows, columns, size].
        mask: 1 for tokens, 0 for the padding behind them [rows, columns].
    """
    vectors = _POOLING[recipe.pooling](states.float(), mask)
    return normalize(vectors, p=2.0, dim=-1) if recipe.normalize else vectors


def _first(states: Tensor, _mask: Tensor) -> Tensor:
    return states[:, 0]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(states.dtype)
    # Chosen, not multiplied: what stands in the padding may be no number, and 0 × NaN is NaN.
    return states.where(weights > 0, 0.0).sum(1) / weights.sum(1)


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)


_POOLING: Final[Mapping[PoolingMode, Callable[[Tensor, Tensor], Tensor]]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "lasttoken": _last,
}
