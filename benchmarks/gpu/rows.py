"""Rows as a runner takes them, without an engine: for the time of one step."""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedModel

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.kvcache.slots import SlotCache, allocate
from gpu_worker.engines.continuous.runners.layer_shapes import layer_shapes
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest


def filled_cache(model: PreTrainedModel, slots: int, context: int) -> SlotCache:
    """Memory for so many rows, as if all of them had been computed: zeros would let attention see nothing."""
    cache = allocate(layer_shapes(model, context), slots, context, model.device)
    for store in cache.stores:
        store.keys.normal_()
        store.values.normal_()
    return cache


def running_rows(lengths: Sequence[int], vocabulary: int, seed: int = 1) -> list[SequenceState]:
    """Rows whose prompts, so long, are in the slots, and which decode; one a slot."""
    rng = random.Random(seed)
    return [_row(slot, length, rng.randrange(vocabulary)) for slot, length in enumerate(lengths)]


def _row(slot: int, length: int, token: int) -> SequenceState:
    request = GenerateRequest(prompt_token_ids=[token], max_tokens=1_000_000)
    row = SequenceState(Row(f"row-{slot}", request), [token] * length, limit=request.max_tokens)
    row.slot, row.computed, row.last = slot, length, token
    return row


def step_chunks(rows: Sequence[SequenceState], ahead: int = 0) -> list[Chunk]:
    """One token for each row, so many behind its newest."""
    return [Chunk(row, row.computed + ahead, row.computed + ahead + 1) for row in rows]


def prompt_chunk(slot: int, ids: list[int]) -> Chunk:
    """A whole prompt that nothing is known of yet."""
    row = SequenceState(Row(f"prompt-{slot}", GenerateRequest(prompt_token_ids=ids)), ids, limit=1)
    row.slot = slot
    return Chunk(row, 0, len(ids))


def lengths_of(kind: str, rows: int, longest: int) -> list[int]:
    """How long the rows are: `equal`, 55 % of the longest, or `mixed`, from a tenth of it on; both 55 % on average."""
    if kind == "equal":
        return [max(1, longest * 55 // 100)] * rows
    rng = random.Random(rows)
    return [rng.randint(max(1, longest // 10), longest) for _ in range(rows)]


def random_ids(count: int, vocabulary: int, seed: int) -> list[int]:
    """Any tokens."""
    rng = random.Random(seed)
    return [rng.randrange(vocabulary) for _ in range(count)]
