"""KV memory: one slot per row, taken once, and read by the model through transformers' Cache.

Each layer keeps keys and values as [slots, heads, columns, dim]. A row writes its own slot in place, and leaves by
being forgotten. What a forward pass writes and reads is an access, set before the pass.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.kvcache.gpu_memory import gpu_bytes_left
from gpu_worker.engines.continuous.rounding import round_up
from promptq.contract.errors import EngineError
from promptq.runtime import cgroups

# Columns are allocated, and read, in multiples of this: few shapes, and aligned rows of the mask.
COLUMN_BUCKET = 64
# Part of the free memory that the slots may take; the rest is for activations.
MEMORY_SHARE = 0.9
# What `auto` takes if it fits. More rows cost each of them time, and gain less and less.
AUTO_SLOTS = {"cpu": 64, "cuda": 256}

log = logging.getLogger(__name__)


class KvAccess(Protocol):
    """What one forward pass writes to and reads from every layer."""

    def exchange(self, store: Tensor, new: Tensor) -> Tensor:
        """Write a layer's new states into its store [slots, heads, columns, dim]; return those to attend to."""
        ...


@dataclass(frozen=True, slots=True)
class RowKvAccess:
    """Decoding: one token for each slot of a range, read as a view.

    Attributes:
        slots: the range, as a slice of the store.
        index: 0, 1, … over the range.
        columns: where each slot's token is written, one per slot of the range.
        width: columns that are read.
    """

    slots: slice
    index: Tensor
    columns: Tensor
    width: int

    def exchange(self, store: Tensor, new: Tensor) -> Tensor:
        """New [slots, heads, 1, dim]; returns [slots, heads, width, dim]."""
        rows = store[self.slots]
        rows[self.index, :, self.columns] = new[:, :, 0]
        return rows[:, :, : self.width]


@dataclass(frozen=True, slots=True)
class PackedKvAccess:
    """Prefill: prompt tokens of several rows in one line, so that none is padding.

    Attributes:
        slots, columns: where each token is written, [tokens].
        read: (slots, columns) of every token attended to, when some row has earlier ones; None: only the new.
    """

    slots: Tensor
    columns: Tensor
    read: tuple[Tensor, Tensor] | None

    def exchange(self, store: Tensor, new: Tensor) -> Tensor:
        """New [1, heads, tokens, dim]; returns [1, heads, tokens read, dim]."""
        store[self.slots, :, self.columns] = new[0].transpose(0, 1)
        if self.read is None:
            return new
        slots, columns = self.read
        return store[slots, :, columns].transpose(0, 1)[None]


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's store. The model only ever calls the cache's `update`."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: LayerShape, slots: int, columns: int, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        (heads, size), (value_heads, value_size) = shape.key, shape.value
        self.keys = zeros((slots, heads, columns, size), shape.dtype, device)
        self.values = zeros((slots, value_heads, columns, value_size), shape.dtype, device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("SlotCache.update has the access")

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the memory was taken at the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise NotImplementedError("masks are given to the model ready-made")

    def get_seq_length(self) -> int:
        """0: every row has its own length, and positions are given to the model."""
        return 0

    def get_max_length(self) -> int:
        return self.keys.shape[2]


class SlotCache(Cache):
    """All layers' slots.

    Attributes:
        columns: tokens per slot, `context` rounded up to whole buckets.
        shapes: what each layer keeps per token.
        stores: keys and values of each layer.
        access: what the next forward pass writes and reads.
    """

    access: KvAccess
    layout = "slots"
    has_neighbours = True

    def __init__(self, shapes: Sequence[LayerShape], slots: int, context: int, device: torch.device) -> None:
        self.columns = round_up(context, COLUMN_BUCKET)
        self.slots = slots
        self.shapes = shapes
        self.stores = [SlotLayer(shape, slots, self.columns, device) for shape in shapes]
        super().__init__(layers=list(self.stores))

    @property
    def key_heads(self) -> int:
        return self.shapes[0].key[0]

    @property
    def head_stride(self) -> int:
        return self.columns

    @property
    def tokens(self) -> int:
        return self.slots * self.columns

    def whole_rows(self) -> Sequence[int]:
        return range(self.slots)

    def start(self, slot: int) -> int:
        return slot * self.key_heads * self.columns

    def read(self, layer: int, slot: int, rows: int, width: int) -> tuple[Tensor, Tensor]:
        store, slots = self.stores[layer], slice(slot, slot + rows)
        return store.keys[slots, :, :width], store.values[slots, :, :width]

    @property
    def bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(store.keys.nbytes + store.values.nbytes for store in self.stores)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new states of a layer; return the keys and values to attend to."""
        store = self.stores[layer_idx]
        return self.access.exchange(store.keys, key_states), self.access.exchange(store.values, value_states)

    def move(self, source: int, target: int, columns: int) -> None:
        """Copy a row's first `columns` columns into another slot."""
        for store in self.stores:
            for states in (store.keys, store.values):
                states[target, :, :columns] = states[source, :, :columns]

    def clear(self, slot: int, _columns: int = 0) -> None:
        """Overwrite a slot with zeros, after a row that may have left NaN in it: all of it, as slots that do not decode
        take part in steps too, and what they read they write to their last column.
        """
        for store in self.stores:
            store.keys[slot].zero_()
            store.values[slot].zero_()


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, not empty: a masked column has weight 0, and 0 × NaN would still be NaN.

    On a CPU they are pages that the system fills when they are first written, so a slot costs memory only as far as
    rows reach; torch.zeros writes all of it, which takes seconds.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap(-1, math.prod(shape) * dtype.itemsize, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def allocate(shapes: Sequence[LayerShape], slots: int, context: int, device: torch.device) -> SlotCache:
    """Take the memory for so many rows of so many tokens; 0 slots: as many as are of use on the device and fit.

    The weights lie as the runner reads them by now: what that takes is no longer free.

    Raises:
        EngineError: the device has too little; says how many slots fit.
    """
    free = int(free_bytes(device) * MEMORY_SHARE)
    per_slot = round_up(context, COLUMN_BUCKET) * sum(shape.token_bytes for shape in shapes)
    wanted = slots or max(1, min(AUTO_SLOTS[device.type], free // per_slot))
    if wanted * per_slot > free:
        raise too_large(wanted, context, per_slot, free, device)
    log.info("%d slots of %d tokens: up to %.2f GiB of KV memory", wanted, context, wanted * per_slot / 2**30)
    try:
        return SlotCache(shapes, wanted, context, device)
    except Exception as error:
        if not is_memory_error(error):
            raise
    # Outside the handler: what was taken so far is free again. In pieces, all of it need not be of use.
    free = min(int(free_bytes(device) * MEMORY_SHARE), wanted * per_slot - 1)
    raise too_large(wanted, context, per_slot, free, device)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now, and that this process may take."""
    if device.type == "cuda":
        return gpu_bytes_left(device)
    left = cgroups.memory_left()
    available = psutil.virtual_memory().available
    return available if left is None else min(left, available)


def too_large(slots: int, context: int, per_slot: int, free: int, device: torch.device) -> EngineError:
    """What to raise when so many rows of the whole context do not fit into so many free bytes."""
    needed, has, fits = slots * per_slot / 2**30, free / 2**30, free // per_slot
    return EngineError(
        f"{slots} slots of {context} tokens need {needed:.2f} GiB of KV memory and {device} has {has:.2f} GiB for it: "
        f"{fits} slots fit; lower PROMPTQ_SLOTS or PROMPTQ_CONTEXT_LENGTH"
        + (", or raise PROMPTQ_GPU_MEMORY_SHARE" if device.type == "cuda" else "")
    )
