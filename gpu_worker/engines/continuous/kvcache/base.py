"""What the engine and the runners ask of a cache: the memory of the rows' keys and values, however it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps per token: key heads and size, value heads and size, of a number format.

    Attributes:
        kind: of layer, as transformers names it.
        window: how many tokens, its own included, a token sees; None: all of its row.
    """

    key: tuple[int, int]
    value: tuple[int, int]
    dtype: torch.dtype
    kind: str = "full_attention"
    window: int | None = None

    @property
    def token_bytes(self) -> int:
        numbers = self.key[0] * self.key[1] + self.value[0] * self.value[1]
        return numbers * self.dtype.itemsize


class LayerStore(Protocol):
    """Keys and values of one layer, each contiguous vectors of `dim` numbers. See `places` for where a row's lie."""

    keys: Tensor
    values: Tensor


class KvCache(Protocol):
    """The memory of one engine's rows.

    A row's `slot` says where its memory is, and means what the cache takes it for.

    Attributes:
        layout: its name.
        shapes: what each layer keeps per token.
        slots: the most rows at once.
        columns: the most tokens of a row, in whole buckets.
        has_neighbours: whether `read` takes several rows.
    """

    layout: str
    shapes: Sequence[LayerShape]
    slots: int
    columns: int
    has_neighbours: bool

    @property
    def stores(self) -> Sequence[LayerStore]:
        """Of each layer."""
        ...

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        ...

    @property
    def key_heads(self) -> int:
        """Key heads of a layer; what `start` and `head_stride` hold for."""
        ...

    @property
    def head_stride(self) -> int:
        """Vectors, in a store, from a column's key head to its next one."""
        ...

    @property
    def bytes(self) -> int:
        """Memory of all keys and values."""
        ...

    def whole_rows(self) -> Sequence[int]:
        """Slots of rows that are all as long as a row may be, as many as there may be at once."""
        ...

    def start(self, slot: int) -> int:
        """The vector, in a store, of this row's first column of key head 0."""
        ...

    def read(self, layer: int, slot: int, rows: int, width: int) -> tuple[Tensor, Tensor]:
        """The first columns of neighbouring rows as views: keys and values, [rows, key heads, width, dim]."""
        ...

    def move(self, source: int, target: int, columns: int) -> None:
        """Copy a row's first `columns` columns to another slot, whose memory may overlap."""
        ...

    def clear(self, slot: int, columns: int) -> None:
        """Overwrite a row's memory with zeros, after one of at most so many columns that may have left NaN in it."""
        ...
