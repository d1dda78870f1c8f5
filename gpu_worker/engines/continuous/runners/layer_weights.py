"""Where the classes that PackedModel knows keep their weights: some lay several products side by side in one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WeightAndBias = tuple[Tensor, Tensor | None]


def states_product(attention: Any) -> WeightAndBias:
    """The weight of queries, keys and values, [(heads + 2 · key heads) · dim, hidden], and its bias."""
    if hasattr(attention, "qkv_proj"):
        return attention.qkv_proj.weight, attention.qkv_proj.bias
    linears = attention.q_proj, attention.k_proj, attention.v_proj
    biases = [linear.bias for linear in linears]
    return torch.cat([linear.weight for linear in linears]), None if biases[0] is None else torch.cat(biases)


def gate_and_up(mlp: Any) -> tuple[WeightAndBias, WeightAndBias]:
    """The two products of a gated MLP, each weight [intermediate, hidden]."""
    if hasattr(mlp, "gate_up_proj"):
        gate, up = mlp.gate_up_proj.weight.chunk(2)
        return (gate, None), (up, None)
    return (mlp.gate_proj.weight, mlp.gate_proj.bias), (mlp.up_proj.weight, mlp.up_proj.bias)


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
