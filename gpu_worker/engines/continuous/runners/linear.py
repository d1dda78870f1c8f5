"""Products with a model's weights, which are the bulk of every step. On a CPU the weights are laid out anew beforehand.

Torch's plain `linear` goes through MKL, which lays the weights out at each call. oneDNN takes weights that have been
laid out once, and our own kernel is faster still; docs/engine-cpu.md has the figures. oneDNN's operators are those that
torch's own compiler emits; they can also add, multiply or apply SiLU on the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.engines.continuous.kernels.library import Kernels

# For how many rows oneDNN's layout is chosen; one layout serves all numbers of rows.
LAYOUT_ROWS = 32

# silu(x·Gᵀ + g) ⊙ (x·Uᵀ + u) for x [rows, in], giving [rows, out].
Gated = Callable[[Tensor], Tensor]
Biases = tuple[Tensor | None, Tensor | None]


class Linear(Protocol):
    """x·Wᵀ + b for x [rows, in], giving [rows, out]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        """The product, each number added to that of `summand` [rows, out]."""
        ...


class PlainLinear:
    """Any device, any number format."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        return self(x).add_(summand)


class OneDnnLinear:
    """On a CPU: keeps its own copy of the weights, laid out for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), LAYOUT_ROWS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self._unary(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the product."""
        return self._unary(x, "swish")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The product, each number multiplied by that of `factor` [rows, out]."""
        return self._binary(x, factor, "mul")

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        return self._binary(x, summand, "add")

    def _unary(self, x: Tensor, act: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, act, [], "")
        return y

    def _binary(self, x: Tensor, other: Tensor, act: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, act)
        return y


class KernelLinear:
    """On a CPU, in float32: keeps its own copy of the weights, in the order in which our kernel reads them."""

    def __init__(self, kernels: Kernels, weight: Tensor, bias: Tensor | None = None) -> None:
        self._kernels, self._outputs = kernels, len(weight)
        self._weights = kernels.packed(weight)
        self._bias = None if bias is None else bias.detach().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return self._kernels.linear(x, self._weights, self._bias, None, self._outputs)

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        return self._kernels.linear(x, self._weights, self._bias, summand, self._outputs)


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether OneDnnLinear works here: a CPU, a build of torch with it, and a format that it has."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def linear(weight: Tensor, bias: Tensor | None = None, kernels: Kernels | None = None) -> Linear:
    """The fastest kind for the weight [out, in] and its device."""
    if kernels:
        return KernelLinear(kernels, weight, bias)
    kind = OneDnnLinear if has_onednn(weight.device, weight.dtype) else PlainLinear
    return kind(weight, bias)


def gated(gate: Tensor, up: Tensor, kernels: Kernels | None = None, biases: Biases = (None, None)) -> Gated:
    """The fastest kind of silu(first) ⊙ second, of two products with the same input: weights [out, in], biases [out].

    Our kernel that computes both at once has no biases, so products with biases are two of its products.
    """
    if kernels and biases == (None, None):
        both = kernels.packed(gate, up)
        return lambda x: kernels.gated(x, both, len(gate))
    if kernels is None and has_onednn(gate.device, gate.dtype):
        first, second = OneDnnLinear(gate, biases[0]), OneDnnLinear(up, biases[1])
        return lambda x: second.times(x, first.silu(x))
    one, other = linear(gate, biases[0], kernels), linear(up, biases[1], kernels)
    return lambda x: functional.silu(one(x), inplace=True).mul_(other(x))
