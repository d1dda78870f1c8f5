"""Where the classes that PackedModel knows keep their weights: some lay several products side by side in one module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WeightAndBias = tuple[Tensor, Tensor | None]


def states_product(attention: Any) -> WeightAndBias:
    """The weight of queries, keys and values, [(heads + 2 · key heads) · dim, hidden], and its bias."""
    if hasattr(attention, "qkv_proj"):
        return attention.qkv_proj.weight, attention.qkv_proj.bias
    return joined([attention.q_proj, attention.k_proj, attention.v_proj])


def gate_and_up(mlp: Any) -> tuple[WeightAndBias, WeightAndBias]:
    """The two products of a gated MLP, each weight [intermediate, hidden]; on a GPU they lie side by side."""
    if hasattr(mlp, "gate_up_proj"):
        gate, up = mlp.gate_up_proj.weight.chunk(2)
        return (gate, None), (up, None)
    if mlp.gate_proj.weight.device.type != "cpu":
        joined([mlp.gate_proj, mlp.up_proj])
    return (mlp.gate_proj.weight, mlp.gate_proj.bias), (mlp.up_proj.weight, mlp.up_proj.bias)


@torch.no_grad()
def joined(linears: Sequence[Any]) -> WeightAndBias:
    """The weights of several linear modules above one another, [all their outputs, inputs], and their biases.

    On a GPU the modules keep views of that, so that no weight is held twice; on a CPU products lay out copies of their
    own, and this one is gone soon. Modules whose weights are such views already stay as they are.
    """
    weights, biases = [linear.weight for linear in linears], [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat(biases)
    if (found := _as_they_lie(weights)) is not None:
        return found, bias
    weight = torch.cat(weights)
    if weight.device.type != "cpu":
        share(linears, weight)
    return weight, bias


def share(linears: Sequence[Any], weight: Tensor) -> None:
    """Make the modules' weights views of this one, which has them above one another."""
    for linear, part in zip(linears, torch.split(weight, [len(linear.weight) for linear in linears]), strict=True):
        linear.weight.data = part


def _as_they_lie(weights: Sequence[Tensor]) -> Tensor | None:
    """The weights as one, without a copy; None: they do not lie above one another."""
    first, end = weights[0], weights[0].data_ptr()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and weight.is_contiguous() and weight.data_ptr() == end):
            return None
        end += weight.nbytes
    return first.detach().as_strided((sum(map(len, weights)), first.shape[1]), first.stride())


def head_norms(attention: Any) -> tuple[Tensor, float] | None:
    """The norms of each query and each key, their weights side by side, [heads + key heads, dim], and their epsilon;
    None where the class has none.
    """
    if not hasattr(attention, "q_norm"):
        return None
    query, key = attention.q_norm, attention.k_norm
    heads, key_heads = (linear.out_features // attention.head_dim for linear in (attention.q_proj, attention.k_proj))
    weights = query.weight.detach().expand(heads, -1), key.weight.detach().expand(key_heads, -1)
    return torch.cat(weights), query.variance_epsilon


def turns_whole_heads(model: Any) -> bool:
    """Whether rotary positions turn every number of a head. Of some configurations they turn the first ones alone."""
    rotary, attention = model.model.rotary_emb, model.model.layers[0].self_attn
    return 2 * len(rotary.inv_freq) == int(attention.head_dim)
