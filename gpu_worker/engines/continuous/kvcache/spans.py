"""KV memory: one pool of tokens for all rows, of which each has a contiguous span.

Each layer keeps keys and values as [heads, pool, dim]. A row's slot is the first token of its span; the scheduler's
`Spans` decide which that is. Runners that read a row by its start can use it, transformers' own code cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.kvcache.slots import COLUMN_BUCKET, zeros
from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.spans import SPAN_BUCKET


class SpanStore:
    """One layer's keys and values, [heads, pool, dim] each."""

    def __init__(self, shape: LayerShape, pool: int, device: torch.device) -> None:
        (heads, size), (value_heads, value_size) = shape.key, shape.value
        self.keys = zeros((heads, pool, size), shape.dtype, device)
        self.values = zeros((value_heads, pool, value_size), shape.dtype, device)


class SpanCache:
    """All layers' pools. See `base.KvCache`.

    Behind the pool lie a few tokens that no row has: what a step computes as padding may be written there.

    Args:
        tokens: of the pool, a multiple of SPAN_BUCKET.

    Attributes:
        columns: the most tokens of a row, `context` rounded up to whole buckets.
    """

    layout = "spans"
    has_neighbours = False

    def __init__(
        self, shapes: Sequence[LayerShape], slots: int, context: int, tokens: int, device: torch.device
    ) -> None:
        self.shapes = shapes
        self.slots = slots
        self.columns = round_up(context, COLUMN_BUCKET)
        self.tokens = tokens
        self.stores = [SpanStore(shape, tokens + SPAN_BUCKET, device) for shape in shapes]

    @property
    def key_heads(self) -> int:
        return self.shapes[0].key[0]

    @property
    def head_stride(self) -> int:
        return self.tokens + SPAN_BUCKET

    @property
    def bytes(self) -> int:
        return sum(store.keys.nbytes + store.values.nbytes for store in self.stores)

    def whole_rows(self) -> Sequence[int]:
        return range(0, self.tokens - self.columns + 1, self.columns)[: self.slots]

    def start(self, slot: int) -> int:
        return slot

    def read(self, layer: int, slot: int, rows: int, width: int) -> tuple[Tensor, Tensor]:
        assert rows == 1, "spans lie anywhere"
        store = self.stores[layer]
        return store.keys[None, :, slot : slot + width], store.values[None, :, slot : slot + width]

    def move(self, source: int, target: int, columns: int) -> None:
        for store in self.stores:
            for states in (store.keys, store.values):
                moved = states[:, source : source + columns]
                # Where the ranges overlap, a copy in place would read what it has written.
                moved = moved.clone() if abs(target - source) < columns else moved
                states[:, target : target + columns] = moved

    def clear(self, slot: int, columns: int) -> None:
        stop = slot + round_up(columns, SPAN_BUCKET)
        for store in self.stores:
            store.keys[:, slot:stop].zero_()
            store.values[:, slot:stop].zero_()
