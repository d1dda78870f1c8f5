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
        self._groups = model.config.num_attention_heads // cache.stores[0].keys.shape[1]
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
            stop = start + segment.rows * segment.tokens
            parts.append(_Part(slice(start, stop), segment, self._mask(segment, columns[start:stop])))
            start = stop
        return parts

    def _mask(self, segment: Segment, columns: Tensor) -> Tensor:
        """To be added to the scores: a token sees its own column and those before.

        [rows, 1, 1, width] for one token a row, else [rows, 1, heads to a key head · tokens, width].
        """
        unseen = torch.arange(segment.width, device=self._device) > columns[:, None]
        mask = torch.zeros(unseen.shape, dtype=self._dtype, device=self._device).masked_fill_(unseen, self._masked)
        mask = mask.view(segment.rows, 1, segment.tokens, segment.width)
        return mask if segment.tokens == 1 else mask.repeat(1, 1, self._groups, 1)

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


@dataclass(frozen=True, slots=True)
class _Part:
    """A segment, where its tokens lie in the line, and its mask."""

    tokens: slice
    segment: Segment
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
    segment, key_heads = part.segment, keys.shape[1]
    rows, tokens, groups = segment.rows, segment.tokens, query.shape[1] // key_heads
    slots = slice(segment.first, segment.first + rows)
    query = query.view(rows, tokens, key_heads, groups, -1).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out = functional.scaled_dot_product_attention(
        query, keys[slots, :, : segment.width], values[slots, :, : segment.width], attn_mask=part.mask
    )
    return out.view(rows, key_heads, groups, tokens, -1).permute(0, 3, 1, 2, 4).reshape(rows * tokens, -1)


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
