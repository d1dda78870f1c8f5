"""The compiled kernels, on torch's tensors: float32, on the CPU. Each function says its shapes; C checks nothing."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.engines.continuous.kernels.build import X86, BuildError, library, targets
from gpu_worker.engines.continuous.kvcache.places import Places

# As in attention.c.
MOST_LANES = 8
MOST_DIM = 256
_WHOLE, _NUMBER, _MEMORY = ctypes.c_long, ctypes.c_float, ctypes.c_void_p
_SIGNATURES: dict[str, list[Any]] = {
    "product": [_WHOLE] * 4 + [_MEMORY] * 5,
    "gated": [_WHOLE] * 4 + [_MEMORY] * 3,
    "norm": [_WHOLE] * 3 + [_NUMBER] + [_MEMORY] * 3,
    "place": [_WHOLE] * 6 + [_MEMORY] * 7,
    "attend": [_WHOLE] * 7 + [_MEMORY] * 6,
}

log = logging.getLogger(__name__)


def usable_targets(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """For which targets the kernels run here, the widest vectors first; none on other devices and in other formats."""
    if device.type != "cpu" or dtype is not torch.float32:
        return ()
    capability = torch.backends.cpu.get_cpu_capability()
    known = {"AVX512": X86, "AVX2": X86[1:]} if targets() == X86 else {capability: targets()}
    return known.get(capability, ())


def load_kernels(folder: Path, device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """The kernels with the widest vectors that run here, compiled into `folder` if need be; None where none do."""
    loaded = load_all(folder, usable_targets(device, dtype)[:1])
    return loaded[0] if loaded else None


def load_all(folder: Path, wanted: Iterable[str]) -> list[Kernels]:
    """The kernels for these targets, compiled into `folder` if need be; a warning for those that cannot be."""
    loaded = []
    for target in wanted:
        try:
            loaded.append(Kernels(library(folder, target), target))
        except (BuildError, OSError) as error:
            log.warning("the engine runs without its own kernels for %s, and slower: %s", target, error)
    return loaded


class Kernels:
    """The functions of the library, run on as many threads as torch has.

    Args:
        path: the compiled library.
        target: what it was compiled for.

    Attributes:
        panel: so many outputs of a product lie together.
    """

    def __init__(self, path: Path, target: str) -> None:
        loaded = ctypes.CDLL(str(path))
        self.target = target
        self.panel = _WHOLE.in_dll(loaded, "promptq_panel").value
        self._product, self._gated, self._norm, self._place, self._attend = (
            _function(loaded, name, types) for name, types in _SIGNATURES.items()
        )

    def packed(self, *weights: Tensor) -> Tensor:
        """Weights [out, in] in the order in which they are read, [out / panel, in, panel]; of several, by turns."""
        return torch.stack([self._panels(weight) for weight in weights], 1).contiguous()

    def _panels(self, weight: Tensor) -> Tensor:
        missing = -len(weight) % self.panel
        whole = functional.pad(weight.detach(), (0, 0, 0, missing))
        return whole.view(-1, self.panel, weight.shape[1]).transpose(1, 2)

    def linear(self, x: Tensor, weights: Tensor, bias: Tensor | None, summand: Tensor | None, outputs: int) -> Tensor:
        """x·Wᵀ + bias + summand: x [rows, in], weights as `packed` gives them, summand and result [rows, out]."""
        x = x.contiguous()
        y = x.new_empty(len(x), outputs)
        self._product(
            torch.get_num_threads(), *x.shape, outputs, x.data_ptr(), weights.data_ptr(),
            None if bias is None else bias.data_ptr(), None if summand is None else summand.data_ptr(), y.data_ptr(),
        )  # fmt: skip
        return y

    def gated(self, x: Tensor, weights: Tensor, outputs: int) -> Tensor:
        """silu(x·Gᵀ) ⊙ (x·Uᵀ), [rows, out]; weights: the panels of G and U by turns."""
        x = x.contiguous()
        y = x.new_empty(len(x), outputs)
        self._gated(torch.get_num_threads(), *x.shape, outputs, x.data_ptr(), weights.data_ptr(), y.data_ptr())
        return y

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Root mean square norm of each row of x [rows, size]."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._norm(torch.get_num_threads(), *x.shape, epsilon, x.data_ptr(), weight.data_ptr(), y.data_ptr())
        return y

    def place(self, states: Tensor, cosine: Tensor, sine: Tensor, places: Places, keys: Tensor, values: Tensor) -> None:
        """Turn the queries by their positions in place, and write the turned keys and the values into their rows.

        Args:
            states: [tokens or more, heads + 2 · key heads, dim], contiguous; only those with a place are written.
            cosine, sine: [tokens or more, dim].
            keys, values: a layer's store, contiguous.
        """
        heads, dim = states.shape[1] - 2 * places.key_heads, states.shape[2]
        self._place(
            torch.get_num_threads(), len(places), heads, places.key_heads, dim, places.head_stride,
            states.data_ptr(), cosine.data_ptr(), sine.data_ptr(), places.starts.data_ptr(), places.columns.data_ptr(),
            keys.data_ptr(), values.data_ptr(),
        )  # fmt: skip

    def attend(self, states: Tensor, places: Places, keys: Tensor, values: Tensor, tokens: int, out: Tensor) -> None:
        """Attention of the first so many tokens, each over its row's columns up to its own; shapes as in `place`.

        Args:
            out: [tokens or more, heads · dim]; the first so many are written.
        """
        groups, dim = states.shape[1] // places.key_heads - 2, states.shape[2]
        self._attend(
            torch.get_num_threads(), tokens, states.stride(0), places.key_heads, groups, dim, places.head_stride,
            states.data_ptr(), keys.data_ptr(), values.data_ptr(), places.starts.data_ptr(), places.columns.data_ptr(),
            out.data_ptr(),
        )  # fmt: skip


def fits_attention(dim: int) -> bool:
    """Whether `attend` and `place` take heads of this size."""
    return dim % MOST_LANES == 0 and dim <= MOST_DIM


def _function(loaded: ctypes.CDLL, name: str, types: list[Any]) -> Any:
    function = loaded[f"promptq_{name}"]
    function.argtypes, function.restype = types, None
    return function
