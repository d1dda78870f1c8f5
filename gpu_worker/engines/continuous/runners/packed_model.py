"""A Llama-shaped model in fewer operations than transformers' own: all tokens of a step in one line, whatever row
they belong to. Reads the model's weights; the model itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.runners.layer_weights import (
    gate_and_up,
    head_norms,
    states_product,
    turns_whole_heads,
)
from gpu_worker.engines.continuous.runners.linear import gated, linear

# Classes whose layers are exactly those below. Others run through transformers' own code.
KNOWN = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "SeedOssForCausalLM",
    }
)


class Attend(Protocol):
    """Attention of one step, over what is in the slots."""

    def __call__(self, layer: int, states: Tensor, rope: Rope) -> Tensor:
        """Turn queries and keys, write keys and values, attend.

        Args:
            states: of each token the queries, the keys and the values, [tokens, heads + 2 · key heads, dim].

        Returns:
            [tokens, heads · dim].
        """
        ...


def is_known(model: PreTrainedModel) -> bool:
    """Whether PackedModel computes what this model does."""
    kind = type(model)
    silu = getattr(model.config, "hidden_act", None) == "silu"
    own = kind.__name__ in KNOWN and kind.__module__.startswith("transformers.")
    return own and silu and turns_whole_heads(model)


class PackedModel:
    """The whole model: embedding, layers, norm and head.

    Args:
        kernels: what is done with them where there are any, and with torch's operators elsewhere.
    """

    def __init__(self, model: Any, kernels: Kernels | None = None) -> None:
        inner = model.model
        self._embed = inner.embed_tokens
        self._rotary = inner.rotary_emb
        self._layers = [_Layer(layer, kernels) for layer in inner.layers]
        self._norm = _norm(inner.norm, kernels)
        self._head = linear(model.lm_head.weight, model.lm_head.bias, kernels)

    def __call__(
        self, ids: Tensor, positions: Tensor, keep: Tensor, attend: Attend, layers: int | None = None
    ) -> Tensor:
        """One pass, through the first so many layers. Ids and positions [tokens]; returns the logits of the tokens in
        `keep`, [kept, vocabulary]."""
        hidden = self._embed(ids)
        cosine, sine = self._rotary(hidden[None], positions[None])
        rope = Rope(cosine[0], sine[0])
        for index, layer in enumerate(self._layers[:layers]):
            hidden = layer(hidden, rope, index, attend)
        return self._head(self._norm(hidden[keep]))


class _Layer:
    def __init__(self, layer: Any, kernels: Kernels | None) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._size: int = attention.head_dim
        self._norms = _norm(layer.input_layernorm, kernels), _norm(layer.post_attention_layernorm, kernels)
        self._states = linear(*states_product(attention), kernels)
        self._head_norms = _head_norms(attention)
        self._out = linear(attention.o_proj.weight, attention.o_proj.bias, kernels)
        (gate, gate_bias), (up, up_bias) = gate_and_up(mlp)
        self._between = gated(gate, up, kernels, (gate_bias, up_bias))
        self._down = linear(mlp.down_proj.weight, mlp.down_proj.bias, kernels)

    def __call__(self, hidden: Tensor, rope: Rope, index: int, attend: Attend) -> Tensor:
        """Hidden [tokens, size], in and out."""
        states = self._states(self._norms[0](hidden)).view(len(hidden), -1, self._size)
        if self._head_norms:
            self._head_norms(states)
        hidden = self._out.plus(attend(index, states, rope), hidden)
        return self._down.plus(self._between(self._norms[1](hidden)), hidden)


def _norm(norm: Any, kernels: Kernels | None) -> Callable[[Tensor], Tensor]:
    weight, epsilon = norm.weight.detach(), norm.variance_epsilon
    return (lambda x: kernels.norm(x, weight, epsilon)) if kernels else _Norm(weight, epsilon)


def _head_norms(attention: Any) -> _HeadNorms | None:
    norms = head_norms(attention)
    return norms and _HeadNorms(*norms)


class _Norm:
    """Root mean square norm. On a CPU torch's own is made of eight operations; these are five."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight, self._epsilon = weight, epsilon
        self._offset = torch.full((1, 1), epsilon, dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype is not torch.float32:
            return functional.rms_norm(x, self._weight.shape, self._weight, self._epsilon)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.addcmul(self._offset, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).mul_(self._weight)


class _HeadNorms:
    """Root mean square norms of each query and each key by itself, as Qwen3 has them.

    Args:
        weight: of the queries and of the keys, [heads + key heads, dim].
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight, self._epsilon = weight, epsilon

    def __call__(self, states: Tensor) -> None:
        """In place: states [tokens, heads + 2 · key heads, dim], queries, keys and values."""
        turned = states[:, : len(self._weight)]
        turned.copy_(functional.rms_norm(turned, turned.shape[-1:], None, self._epsilon)).mul_(self._weight)


class Rope:
    """Rotary positions of one step's tokens: turns queries and keys [tokens, heads, dim].

    Attributes:
        cosine, sine: [tokens, dim], as transformers' rotary modules give them.
    """

    def __init__(self, cosine: Tensor, sine: Tensor) -> None:
        self.cosine, self.sine = cosine, sine

    def __call__(self, states: Tensor) -> Tensor:
        half = states.shape[-1] // 2
        return torch.addcmul(states * self.cosine[:, None], states.roll(half, -1), self._signed)

    @cached_property
    def _signed(self) -> Tensor:
        # The halves change places, and the one that comes first changes its sign.
        half = self.sine.shape[-1] // 2
        return torch.cat((-self.sine[:, :half], self.sine[:, half:]), -1)[:, None]
