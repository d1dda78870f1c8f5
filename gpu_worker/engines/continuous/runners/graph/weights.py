"""Products with the same input as one, without keeping any weight twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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


@torch.no_grad()
def joined(linears: Sequence[Any]) -> WeightAndBias:
    """The weights of several linear modules above one another. The modules keep views of that, with the same numbers:
    so transformers' own code goes on with the model, and for one layer at a time alone the weights are there twice.
    """
    weight = torch.cat([linear.weight for linear in linears])
    parts = torch.split(weight, [len(linear.weight) for linear in linears])
    for linear, part in zip(linears, parts, strict=True):
        linear.weight.data = part
    biases = [linear.bias for linear in linears]
    return weight, None if biases[0] is None else torch.cat(biases)
