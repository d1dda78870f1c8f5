"""The floor: the weights' matrix products alone, at the row counts of a run's own passes, prefill included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpu_worker.engines.continuous.runners.linear import Linear

Pass = tuple[int, int]


class Floor:
    """All weights of a model.

    Args:
        make: what multiplies with a weight [out, in] and its bias.
    """

    def __init__(self, model: Any, make: Callable[[Tensor, Tensor | None], Linear]) -> None:
        head = model.get_output_embeddings()
        linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
        self._layers: list[Linear] = [make(linear.weight, linear.bias) for linear in linears]
        self._inputs = [linear.in_features for linear in linears]
        self._head = make(head.weight, head.bias)
        self._size = head.in_features
        self.weights = sum(linear.weight.numel() for linear in [*linears, head])

    def seconds(self, passes: Sequence[Pass]) -> float:
        """How long the products of these passes (tokens computed, logits computed) take."""
        x = {size: torch.randn(max(tokens for tokens, _ in passes), size) for size in {*self._inputs, self._size}}
        started = time.perf_counter()
        with torch.inference_mode():
            for tokens, logits in passes:
                self._pass(x, tokens, logits)
        return time.perf_counter() - started

    def _pass(self, x: dict[int, Tensor], tokens: int, logits: int) -> None:
        for multiply, size in zip(self._layers, self._inputs, strict=True):
            multiply(x[size][:tokens])
        if logits:
            self._head(x[self._size][:logits])
