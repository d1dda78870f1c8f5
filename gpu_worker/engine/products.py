"""Products with a model's weights: the bulk of every step. On a CPU the weights are laid out for oneDNN beforehand.

Plain `linear` goes through MKL, which lays the weights out anew at each call: at 8 to 48 rows it takes 1.5 to 3 times
as long. The operators used instead are those that torch's own compiler emits; they can also add, multiply or apply
SiLU on the way out.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# For how many rows the layout is chosen. One layout serves all: others were no faster at 1 to 96 rows.
LAYOUT_ROWS = 32


class Product(Protocol):
    """x·Wᵀ + b for x [rows, in], giving [rows, out]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the product."""
        ...

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """The product, each number multiplied by that of `factor` [rows, out]."""
        ...

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        """The product, each number added to that of `summand` [rows, out]."""
        ...


class PlainProduct:
    """Any device, any number format."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        return functional.silu(self(x), inplace=True)

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return self(x).mul_(factor)

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        return self(x).add_(summand)


class OneDnnProduct:
    """On a CPU: keeps its own copy of the weights, laid out for oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), LAYOUT_ROWS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return self._unary(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        return self._unary(x, "swish")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return self._binary(x, factor, "mul")

    def plus(self, x: Tensor, summand: Tensor) -> Tensor:
        return self._binary(x, summand, "add")

    def _unary(self, x: Tensor, act: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, act, [], "")
        return y

    def _binary(self, x: Tensor, other: Tensor, act: str) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, act)
        return y


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether OneDnnProduct works here: a CPU, a build of torch with it, and a format that it has."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The fastest kind for the weight [out, in] and its device."""
    kind = OneDnnProduct if has_onednn(weight.device, weight.dtype) else PlainProduct
    return kind(weight, bias)
