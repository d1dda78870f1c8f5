"""Takes one engine's KV memory, in the layout that its runner reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch

from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.kvcache.base import KvCache, LayerShape
from gpu_worker.engines.continuous.kvcache.slots import (
    AUTO_SLOTS,
    COLUMN_BUCKET,
    MEMORY_SHARE,
    SlotCache,
    allocate,
    free_bytes,
    too_large,
)
from gpu_worker.engines.continuous.kvcache.spans import SpanCache
from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.scheduler.room import Room, SlotRoom
from gpu_worker.engines.continuous.scheduler.spans import SPAN_BUCKET, Spans

Layout = Literal["auto", "slots", "spans"]

log = logging.getLogger(__name__)


class KvMemory:
    """The memory that an engine may take, not taken yet.

    Args:
        slots: the most rows at once; 0: as many as are of use on the device.
        context: the most tokens of a row.
        layout: `slots`: each row has memory for the whole context; `spans`: a row has as much as it can come to, where
            the runner reads it so; `auto`: spans where the runner is faster for them.
    """

    def __init__(
        self, shapes: Sequence[LayerShape], slots: int, context: int, device: torch.device, layout: Layout = "auto"
    ) -> None:
        self.shapes = shapes
        self._slots, self._context, self._device, self._layout = slots, context, device, layout
        self._cache: SlotCache | SpanCache | None = None

    def as_slots(self) -> SlotCache:
        """For runners that read rows of one length side by side.

        Raises:
            EngineError: the device has too little; says how many slots fit.
        """
        if not isinstance(self._cache, SlotCache):
            self._cache = None  # before the other is taken
            self._cache = allocate(self.shapes, self._slots, self._context, self._device)
        return self._cache

    def by_start(self, *, is_faster: bool) -> KvCache:
        """For runners that read each row by its start.

        Args:
            is_faster: whether the runner reads spans as fast as slots.

        Raises:
            EngineError: the device has too little.
        """
        if self._layout == "slots" or (self._layout == "auto" and not is_faster):
            return self.as_slots()
        if not isinstance(self._cache, SpanCache):
            self._cache = None
            self._cache = allocate_spans(self.shapes, self._slots, self._context, self._device)
        return self._cache

    @property
    def taken(self) -> KvCache | None:
        """What was taken last."""
        return self._cache


def allocate_spans(shapes: Sequence[LayerShape], slots: int, context: int, device: torch.device) -> SpanCache:
    """Take a pool for so many rows of the whole context, or as much of it as fits; 0 slots: as many as are of use.

    Raises:
        EngineError: the device has too little for one row.
    """
    free = int(free_bytes(device) * MEMORY_SHARE)
    per_token = sum(shape.token_bytes for shape in shapes)
    columns, rows = round_up(context, COLUMN_BUCKET), slots or AUTO_SLOTS[device.type]
    # Whole buckets, and room for what lies behind the pool.
    tokens = min(rows * columns, free // (per_token * SPAN_BUCKET) * SPAN_BUCKET - SPAN_BUCKET)
    if tokens < columns:
        raise too_large(1, context, columns * per_token, free, device)
    log.info(
        "%d rows in %d tokens of KV memory: up to %.2f GiB, enough for %.1f rows of the whole context",
        rows, tokens, tokens * per_token / 2**30, tokens / columns,
    )  # fmt: skip
    try:
        return SpanCache(shapes, rows, context, tokens, device)
    except Exception as error:
        if not is_memory_error(error):
            raise
    # Outside the handler: what was taken so far is free again. In pieces, all of it need not be of use.
    free = min(int(free_bytes(device) * MEMORY_SHARE), tokens * per_token - 1)
    raise too_large(max(1, tokens // columns), context, columns * per_token, free, device)


def room_of(cache: KvCache) -> Room:
    """What hands out the memory of a cache."""
    if isinstance(cache, SpanCache):
        return Spans(cache.tokens, cache.columns)
    return SlotRoom(cache.slots, cache.columns)
