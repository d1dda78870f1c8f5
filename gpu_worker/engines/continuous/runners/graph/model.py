"""A Llama-shaped model as few operations of fixed shapes: what a CUDA graph records. The products that share an input
are joined, and the sums behind a product are added by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.engines.continuous.runners.graph.attention import Attention, QueryRows
from gpu_worker.engines.continuous.runners.graph.store_views import StoreViews
from gpu_worker.engines.continuous.runners.graph.weights import gate_and_up_product, states_product
from gpu_worker.engines.continuous.runners.layer_weights import head_norms

Rotation = tuple[Tensor, Tensor]
"""Cosines, and sines with the first half's sign changed, of each token: [tokens, 1, dim]."""


class GraphModel:
    """The whole model: embedding, layers, norm and head.

    Its products' weights are joined, and the model's own modules keep views of them: nothing is held twice.

    Args:
        stores: each layer's keys and values.
        positions: how many there are, which no row goes beyond.
    """

    def __init__(self, model: Any, stores: Sequence[StoreViews], attention: Attention, positions: int) -> None:
        inner = model.model
        self._embed = inner.embed_tokens.weight.detach()
        self._rotations = _rotations(inner.rotary_emb, self._embed, positions)
        self._layers = [_Layer(layer, each, attention) for layer, each in zip(inner.layers, stores, strict=True)]
        self._norm = inner.norm.weight.detach(), inner.norm.variance_epsilon
        self._head = model.lm_head.weight.detach(), model.lm_head.bias

    def __call__(self, ids: Tensor, positions: Tensor, vectors: Tensor, rows: QueryRows, kept: Tensor | None) -> Tensor:
        """One pass.

        Args:
            ids, positions: [tokens].
            vectors: where each token's keys and values go, [tokens, key heads].
            kept: indices of the tokens whose logits are wanted; None: all.

        Returns:
            Logits, [kept, vocabulary].
        """
        hidden = functional.embedding(ids, self._embed)
        cosine, sine = (numbers.index_select(0, positions) for numbers in self._rotations)
        for layer in self._layers:
            layer(hidden, (cosine, sine), vectors, rows)
        hidden = hidden if kept is None else hidden.index_select(0, kept)
        return functional.linear(_normed(hidden, *self._norm), *self._head)


class _Layer:
    def __init__(self, layer: Any, store: StoreViews, attention: Attention) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self._store, self._attention = store, attention
        self._size: int = own.head_dim
        self._norms = [
            (norm.weight.detach(), norm.variance_epsilon)
            for norm in (layer.input_layernorm, layer.post_attention_layernorm)
        ]
        self._head_norms = head_norms(own)
        self._states, self._between = states_product(own), gate_and_up_product(mlp)
        self._out = own.o_proj.weight.detach().t(), own.o_proj.bias
        self._down = mlp.down_proj.weight.detach().t(), mlp.down_proj.bias

    def __call__(self, hidden: Tensor, rotation: Rotation, vectors: Tensor, rows: QueryRows) -> None:
        """Hidden [tokens, size], changed in place."""
        states = functional.linear(_normed(hidden, *self._norms[0]), *self._states).view(len(hidden), -1, self._size)
        _add_product(hidden, self._attended(states, rotation, vectors, rows), *self._out)
        gate, up = functional.linear(_normed(hidden, *self._norms[1]), *self._between).chunk(2, -1)
        _add_product(hidden, functional.silu(gate).mul_(up), *self._down)

    def _attended(self, states: Tensor, rotation: Rotation, vectors: Tensor, rows: QueryRows) -> Tensor:
        """States are queries, keys and values, [tokens, heads + 2 · key heads, dim]; returns [tokens, heads · dim]."""
        key_heads, store = vectors.shape[1], self._store
        turned = _turned(self._with_head_norms(states[:, :-key_heads]), *rotation)
        query, key = turned[:, :-key_heads], turned[:, -key_heads:]
        store.write(vectors, key, states[:, -key_heads:])
        return self._attention(query, store.read_keys, store.read_values, rows).flatten(1)

    def _with_head_norms(self, states: Tensor) -> Tensor:
        if self._head_norms is None:
            return states
        weight, epsilon = self._head_norms
        return functional.rms_norm(states, states.shape[-1:], None, epsilon).mul_(weight)


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(x, weight.shape, weight, epsilon)


def _add_product(hidden: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Add x · weight [in, out] and the bias to hidden, in place."""
    hidden.addmm_(x, weight)
    if bias is not None:
        hidden.add_(bias)


def _turned(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions of queries and keys, [tokens, heads, dim]."""
    return torch.addcmul(states * cosine, states.roll(states.shape[-1] // 2, -1), sine)


@torch.inference_mode()
def _rotations(rotary: Any, like: Tensor, positions: int) -> Rotation:
    """By the model's own module, for each position: [positions, 1, dim]."""
    every = torch.arange(positions, device=like.device)[None]
    cosine, sine = (numbers[0][:, None] for numbers in rotary(like[None, :1], every))
    # The halves change places, and the one that comes first changes its sign.
    half = sine.shape[-1] // 2
    return cosine, torch.cat((-sine[..., :half], sine[..., half:]), -1)
