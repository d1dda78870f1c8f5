"""A Llama-shaped model in fewer operations than transformers' own: all tokens of a step in one flat line, whatever row
they belong to. Reads the model's weights; the model itself stays as it is.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from gpu_worker.engine.products import product

# Classes whose layers are exactly those below. Others run through transformers' own code.
KNOWN = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})


class Attend(Protocol):
    """Attention of one step, over what is in the slots."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write keys and values [tokens, kv heads, dim]; attend from queries [tokens, heads, dim].

        Returns:
            [tokens, heads · dim].
        """
        ...


def is_known(model: PreTrainedModel) -> bool:
    """Whether FlatModel computes what this model does."""
    kind = type(model)
    silu = getattr(model.config, "hidden_act", None) == "silu"
    return kind.__name__ in KNOWN and kind.__module__.startswith("transformers.") and silu


class FlatModel:
    """The whole model: embedding, layers, norm and head."""

    def __init__(self, model: Any) -> None:
        inner = model.model
        self._embed = inner.embed_tokens
        self._rotary = inner.rotary_emb
        self._layers = [_Layer(layer) for layer in inner.layers]
        self._norm = _Norm(inner.norm)
        self._head = product(model.lm_head.weight, model.lm_head.bias)

    def __call__(
        self, ids: Tensor, positions: Tensor, keep: Tensor, attend: Attend, layers: int | None = None
    ) -> Tensor:
        """One pass, through the first so many layers. Ids and positions [tokens]; returns the logits of the tokens in
        `keep`, [kept, vocabulary]."""
        hidden = self._embed(ids)
        turn = _Rotation(*self._rotary(hidden[None], positions[None]))
        for index, layer in enumerate(self._layers[:layers]):
            hidden = layer(hidden, turn, index, attend)
        return self._head(self._norm(hidden[keep]))


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._size: int = attention.head_dim
        self._key_heads = attention.k_proj.out_features // self._size
        self._norms = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._states = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = product(attention.o_proj.weight, attention.o_proj.bias)
        self._gate = product(mlp.gate_proj.weight, mlp.gate_proj.bias)
        self._up = product(mlp.up_proj.weight, mlp.up_proj.bias)
        self._down = product(mlp.down_proj.weight, mlp.down_proj.bias)

    def __call__(self, hidden: Tensor, turn: _Rotation, index: int, attend: Attend) -> Tensor:
        """Hidden [tokens, size], in and out."""
        states = self._states(self._norms[0](hidden)).view(len(hidden), -1, self._size)
        turned, value = turn(states[:, : -self._key_heads]), states[:, -self._key_heads :]
        query, key = turned[:, : -self._key_heads], turned[:, -self._key_heads :]
        hidden = self._out.plus(attend(index, query, key, value), hidden)
        normal = self._norms[1](hidden)
        return self._down.plus(self._up.times(normal, self._gate.silu(normal)), hidden)


class _Norm:
    """Root mean square norm. On a CPU torch's own is made of eight operations; these are five."""

    def __init__(self, norm: Any) -> None:
        self._weight: Tensor = norm.weight
        self._epsilon: float = norm.variance_epsilon
        self._offset = torch.full((1, 1), norm.variance_epsilon, dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype is not torch.float32:
            return functional.rms_norm(x, self._weight.shape, self._weight, self._epsilon)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.addcmul(self._offset, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).mul_(self._weight)


class _Rotation:
    """Rotary positions of one step's tokens: turns queries and keys [tokens, heads, dim]."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        """Both [1, tokens, dim], as transformers' rotary modules give them."""
        self._half = cos.shape[-1] // 2
        self._cos = cos[0, :, None]
        # The halves change places, and the one that comes first changes its sign.
        self._sin = torch.cat((-sin[..., : self._half], sin[..., self._half :]), -1)[0, :, None]

    def __call__(self, states: Tensor) -> Tensor:
        return torch.addcmul(states * self._cos, states.roll(self._half, -1), self._sin)


def _joined(*linears: Any) -> Any:
    """One product for several linear modules with the same input; their outputs lie side by side."""
    biases = [linear.bias for linear in linears]
    bias = None if biases[0] is None else torch.cat(biases)
    return product(torch.cat([linear.weight for linear in linears]), bias)
