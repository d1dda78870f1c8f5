"""Products with the same input as one, without keeping any weight twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_worker.engines.continuous.runners import layer_weights

WeightAndBias = tuple[Tensor, Tensor | None]


def states_product(attention: Any) -> WeightAndBias:
    """Queries, keys and values: the weight [(heads + 2 · key heads) · dim, hidden], and the bias."""
    if hasattr(attention, "qkv_proj"):
        return attention.qkv_proj.weight.detach(), attention.qkv_proj.bias
    return joined([attention.q_proj, attention.k_proj, attention.v_proj])


def gate_and_up_product(mlp: Any) -> WeightAndBias:
    """The two products of a gated MLP: the weight [2 · intermediate, hidden], the gate's first, and the bias."""
    if hasattr(mlp, "gate_up_proj"):
        return mlp.gate_up_proj.weight.detach(), mlp.gate_up_proj.bias
    return joined([mlp.gate_proj, mlp.up_proj])


@torch.inference_mode(False)
def joined(linears: Sequence[Any]) -> WeightAndBias:
    """The weights of several linear modules above one another. The modules keep views of that, on a CPU too, with the
    same numbers: transformers' own code goes on with the model, and for one layer at a time alone they are held twice.
    """
    weight, bias = layer_weights.joined(linears)
    layer_weights.share(linears, weight)
    return weight, bias
