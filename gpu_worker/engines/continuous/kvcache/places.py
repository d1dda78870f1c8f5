"""Where a step's tokens lie in a layer's store, told alike for every layout of the store.

A store of keys or values is vectors of `dim` numbers, one behind another. Element (row, key head h, column c) is the
vector at start + h * head_stride + c: `start` is the row's, and `head_stride` the cache's. So what reads rows by their
start, our kernels and flash attention, need not know how the cache lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Of each token of a step that has a row.

    Attributes:
        starts: the vector of its row's first column of key head 0, [tokens], long.
        columns: its column in its row, [tokens], long.
        head_stride: vectors from a column's key head to its next one.
        key_heads: of every layer.
    """

    starts: Tensor
    columns: Tensor
    head_stride: int
    key_heads: int

    def __len__(self) -> int:
        return len(self.starts)

    def vectors(self) -> Tensor:
        """Where the vectors of the tokens' key heads lie, [tokens · key heads], long: of a token all its heads."""
        heads = torch.arange(self.key_heads, device=self.starts.device) * self.head_stride
        return ((self.starts + self.columns)[:, None] + heads).flatten()
