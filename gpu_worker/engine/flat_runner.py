"""Runs a FlatModel over the slots: new tokens of prompts and of running rows together, in one pass a step."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from gpu_worker.engine.flat_model import FlatModel
from gpu_worker.engine.sampling import draw, next_tokens
from gpu_worker.engine.segments import Segment, segments
from gpu_worker.engine.sequence import Chunk
from gpu_worker.engine.slots import SlotCache


class FlatRunner:
    """Computes chunks in the slots of one cache. See `model_runner.Runner` for the contract."""

    def __init__(self, model: PreTrainedModel, cache: SlotCache) -> None:
        self.cache = cache
        self._device = model.device
        self._masked = torch.finfo(model.dtype).min
        self._dtype = model.dtype
        self._key_heads = cache.stores[0].keys.shape[1]
        self._groups = model.config.num_attention_heads // self._key_heads
        self._model = FlatModel(model)

    @torch.inference_mode()
    def run(self, chunks: Rows[Chunk]) -> list[int]:
        lines = zip(*map(_line, chunks), strict=True)
        ids, slots, columns = self._tensor([list(chain.from_iterable(line)) for line in lines])
        attend = _Attention(self.cache, slots, columns, self._parts(chunks, columns))
        ends = [end for end, chunk in zip(_ends(chunks), chunks, strict=True) if chunk.gives_token]
        logits = self._model(ids, columns, self._tensor(ends), attend)
        return next_tokens(logits, [draw(chunk.sequence) for chunk in chunks if chunk.gives_token])

    def _parts(self, chunks: Rows[Chunk], columns: Tensor) -> list[_Part]:
        parts, start = [], 0
        for segment in segments(chunks):
            stop = start + len(segment.live) * segment.tokens
            live = self._tensor(segment.live) if len(segment.live) < segment.rows else None
            parts.append(_Part(slice(start, stop), segment, live, self._mask(segment, live, columns[start:stop])))
            start = stop
        return parts

    def _mask(self, segment: Segment, live: Tensor | None, columns: Tensor) -> Tensor:
        """To be added to the scores: a token sees its own column and those before.

        [rows · key heads, 1, width] for one token a row, else [rows, 1, heads to a key head · tokens, width].
        """
        unseen = torch.arange(segment.width, device=self._device) > columns[:, None]
        mask = torch.zeros(unseen.shape, dtype=self._dtype, device=self._device).masked_fill_(unseen, self._masked)
        if segment.tokens == 1:
            return _spread(mask, live, segment.rows).repeat_interleave(self._key_heads, 0)[:, None]
        return mask.view(segment.rows, 1, segment.tokens, segment.width).repeat(1, 1, self._groups, 1)

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, where its tokens lie in the line, and its mask.

    Attributes:
        live: which of its rows have a token; None: all.
    """

    tokens: slice
    segment: Segment
    live: Tensor | None
    mask: Tensor


@dataclass(frozen=True, slots=True)
class _Attention:
    """One step's attention over the slots.

    Attributes:
        slots, columns: where each token's keys and values are written, [tokens].
    """

    cache: SlotCache
    slots: Tensor
    columns: Tensor
    parts: list[_Part]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        store = self.cache.stores[layer]
        store.keys[self.slots, :, self.columns] = key
        store.values[self.slots, :, self.columns] = value
        attended = [_attend(part, query[part.tokens], store.keys, store.values) for part in self.parts]
        return attended[0] if len(attended) == 1 else torch.cat(attended)


def _attend(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Query [rows · tokens, heads, dim] over the part's slots; returns [rows · tokens, heads · dim].

    The query heads that share a key head are put side by side with the tokens, so that keys and values are read as
    they lie: no head is repeated.
    """
    segment = part.segment
    slots = slice(segment.first, segment.first + segment.rows)
    keys, values = keys[slots, :, : segment.width], values[slots, :, : segment.width]
    act = _attend_running if segment.tokens == 1 else _attend_prompts
    return act(part, query, keys, values)


def _attend_running(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One token a row: two batched products. The fused kernel, made for many tokens, takes twice as long on a CPU."""
    rows, key_heads, _, size = keys.shape
    query = _spread(query, part.live, rows).reshape(rows * key_heads, -1, size)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    scores = torch.baddbmm(part.mask, query, keys.transpose(1, 2), alpha=size**-0.5)
    attended = torch.bmm(scores.softmax(-1), values).view(rows, -1)
    return attended if part.live is None else attended[part.live]


def _spread(states: Tensor, live: Tensor | None, rows: int) -> Tensor:
    """Put states [live rows, …] where they belong among `rows`; zeros between."""
    if live is None:
        return states
    return states.new_zeros(rows, *states.shape[1:]).index_copy_(0, live, states)


def _attend_prompts(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    rows, key_heads, _, size = keys.shape
    query = query.view(rows, part.segment.tokens, key_heads, -1, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out = functional.scaled_dot_product_attention(query, keys, values, attn_mask=part.mask)
    out = out.view(rows, key_heads, -1, part.segment.tokens, size)
    return out.permute(0, 3, 1, 2, 4).reshape(rows * part.segment.tokens, -1)


def _line(chunk: Chunk) -> tuple[list[int], list[int], range]:
    """Id, slot and column of each of the chunk's tokens."""
    return chunk.tokens, [chunk.slot] * (chunk.stop - chunk.start), range(chunk.start, chunk.stop)


def _ends(chunks: Rows[Chunk]) -> list[int]:
    """Index of each chunk's last token in the line."""
    ends, end = [], 0
    for chunk in chunks:
        end += chunk.stop - chunk.start
        ends.append(end - 1)
    return ends
