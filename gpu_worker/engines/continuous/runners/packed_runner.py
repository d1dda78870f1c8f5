"""Runs a PackedModel over the slots: new tokens of prompts and of running rows together, in one pass a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kernels.library import Kernels, fits_attention
from gpu_worker.engines.continuous.kvcache.base import KvCache, LayerShape
from gpu_worker.engines.continuous.kvcache.places import Places
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.runners.attention_groups import AttentionGroup, attention_groups
from gpu_worker.engines.continuous.runners.linear import has_onednn
from gpu_worker.engines.continuous.runners.packed_model import Attend, PackedModel, Rope
from gpu_worker.engines.continuous.sampling import choose
from gpu_worker.engines.continuous.scheduler import step_cost
from gpu_worker.engines.continuous.scheduler.drafts import MOST_DRAFTS
from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost

# Up to so many tokens a row, running rows with their drafts, attention is computed as plain products.
FEW_TOKENS = MOST_DRAFTS + 1
# For up to so many running rows oneDNN's kernels are made at the start: a step that meets a new number waits for one.
WARM_ROWS = 16


class PackedRunner:
    """Computes chunks in the slots of one cache. See `base.Runner` for the contract.

    Args:
        kernels: our own, for a CPU; None: torch's operators alone.
        weights: of the model, laid out with the kernels that are `usable`; None: it lays them out itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: KvCache,
        kernels: Kernels | None = None,
        weights: PackedModel | None = None,
    ) -> None:
        self.cache = cache
        self._device = model.device
        self._masked = torch.finfo(model.dtype).min
        self._dtype = model.dtype
        self._key_heads = cache.key_heads
        self._groups = model.config.num_attention_heads // self._key_heads
        self._kernels = usable(kernels, cache.shapes[0])
        self._model = weights or PackedModel(model, self._kernels)
        onednn = has_onednn(model.device, model.dtype)
        self.linear_kind = f"kernels-{self._kernels.target}" if self._kernels else "onednn" if onednn else "torch"
        self.step_cost = _step_cost(model.device, self._kernels)
        if self.linear_kind == "onednn":
            self._warm_up(min(WARM_ROWS, cache.slots))

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Chosen:
        return choose(self.logits(chunks), chunks)

    @torch.inference_mode()
    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        lines = zip(*map(self._line, chunks), strict=True)
        ids, starts, columns = self._tensor([list(chain.from_iterable(line)) for line in lines])
        attend = self._attention(chunks, Places(starts, columns, self.cache.head_stride, self._key_heads))
        padding = 0 if all(chunk.decodes for chunk in chunks) else -len(ids) % self.step_cost.bucket
        return self._model(_padded(ids, padding), _padded(columns, padding), self._tensor(_kept(chunks)), attend)

    def _line(self, chunk: Chunk) -> tuple[list[int], list[int], range]:
        """Id, start of its row and column of each of the chunk's tokens."""
        return chunk.tokens, [self.cache.start(chunk.slot)] * (chunk.stop - chunk.start), range(chunk.start, chunk.stop)

    @torch.inference_mode()
    def _warm_up(self, rows: int) -> None:
        """Every product once for each number of rows. One layer stands for all: their weights have the same shapes."""
        heads = self._groups * self._key_heads
        for count in range(1, rows + 1):
            ids = self._tensor(range(count))
            self._model(ids, ids, ids, lambda _layer, states, _rope: states[:, :heads].flatten(1), layers=1)

    def _attention(self, chunks: Sequence[Chunk], places: Places) -> Attend:
        if self._kernels is None:
            return _Attention(self.cache, places, places.vectors(), self._parts(chunks, places.columns))
        running = list(takewhile(lambda chunk: chunk.decodes, chunks))
        tokens = sum(chunk.stop - chunk.start for chunk in running)
        parts = self._parts(chunks[len(running) :], places.columns, tokens)
        return _KernelAttention(self._kernels, self.cache, places, tokens, parts)

    def _parts(self, chunks: Sequence[Chunk], columns: Tensor, start: int = 0) -> list[_Part]:
        """What is attended to by torch's operators: the tokens of these chunks, the first of which is `start`."""
        parts = []
        for group in attention_groups(chunks, alone=not self.cache.has_neighbours):
            stop = start + len(group.live) * group.tokens
            live = self._tensor(group.live) if len(group.live) < group.rows else None
            parts.append(_Part(slice(start, stop), group, live, self._mask(group, live, columns[start:stop])))
            start = stop
        return parts

    def _mask(self, group: AttentionGroup, live: Tensor | None, columns: Tensor) -> Tensor:
        """To be added to the scores: a token sees its own column and those before.

        [rows · key heads, 1, width] for one token a row; [rows · key heads, heads to a key head · tokens, width] for a
        few; else [rows, 1, heads to a key head · tokens, width].
        """
        rows, tokens, width = group.rows, group.tokens, group.width
        unseen = torch.arange(width, device=self._device) > columns[:, None]
        mask = torch.zeros(unseen.shape, dtype=self._dtype, device=self._device).masked_fill_(unseen, self._masked)
        mask = _spread(mask, live, rows).view(rows, 1, 1, tokens, width)
        if tokens > FEW_TOKENS:
            return mask.expand(-1, -1, self._groups, -1, -1).flatten(2, 3)
        return mask.expand(-1, self._key_heads, self._groups if tokens > 1 else 1, -1, -1).flatten(2, 3).flatten(0, 1)

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def usable(kernels: Kernels | None, shape: LayerShape) -> Kernels | None:
    """The kernels, if they take heads of this size."""
    return kernels if fits_attention(shape.key[1]) else None


def _step_cost(device: torch.device, kernels: Kernels | None) -> StepCost:
    if device.type == "cuda":
        return step_cost.CUDA
    return step_cost.CPU_KERNELS[kernels.target] if kernels else step_cost.CPU


@dataclass(frozen=True, slots=True)
class _Part:
    """A group, where its tokens lie in the line, and its mask.

    Attributes:
        live: which of its rows have a token; None: all.
    """

    tokens: slice
    group: AttentionGroup
    live: Tensor | None
    mask: Tensor

    @property
    def rows(self) -> tuple[int, int, int]:
        """What it reads: the first slot, how many rows, and how many columns of each."""
        return self.group.first, self.group.rows, self.group.width


@dataclass(frozen=True, slots=True)
class _Attention:
    """One step's attention over the rows' keys and values.

    Attributes:
        vectors: of the stores, where those of the tokens are written; see `Places.vectors`.
    """

    cache: KvCache
    places: Places
    vectors: Tensor
    parts: list[_Part]

    def __call__(self, layer: int, states: Tensor, rope: Rope) -> Tensor:
        store, tokens, key_heads = self.cache.stores[layer], len(self.places), self.places.key_heads
        turned, value = rope(states[:, :-key_heads]), states[:, -key_heads:]
        query, key = turned[:, :-key_heads], turned[:, -key_heads:]
        _write(store.keys, self.vectors, key[:tokens])
        _write(store.values, self.vectors, value[:tokens])
        attended = [_attend(part, query[part.tokens], *self.cache.read(layer, *part.rows)) for part in self.parts]
        if padding := len(query) - tokens:
            attended.append(query.new_zeros(padding, attended[0].shape[1]))
        return attended[0] if len(attended) == 1 else torch.cat(attended)


@dataclass(frozen=True, slots=True)
class _KernelAttention:
    """The same with our kernels for running rows; prompts have torch's fused attention.

    Attributes:
        running: how many tokens, the first ones, are of running rows.
        parts: the others.
    """

    kernels: Kernels
    cache: KvCache
    places: Places
    running: int
    parts: list[_Part]

    def __call__(self, layer: int, states: Tensor, rope: Rope) -> Tensor:
        keys, values = self.cache.stores[layer].keys, self.cache.stores[layer].values
        heads = states.shape[1] - 2 * self.places.key_heads
        self.kernels.place(states, rope.cosine, rope.sine, self.places, keys, values)
        out = states.new_empty(len(states), heads * states.shape[2])
        self.kernels.attend(states, self.places, keys, values, self.running, out)
        for part in self.parts:
            out[part.tokens] = _attend(part, states[part.tokens, :heads], *self.cache.read(layer, *part.rows))
        return out


def _write(store: Tensor, vectors: Tensor, new: Tensor) -> None:
    """Put the tokens' states [tokens, key heads, dim] where they belong."""
    store.view(-1, store.shape[-1]).index_copy_(0, vectors, new.flatten(0, 1))


def _attend(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Query [rows · tokens, heads, dim] over keys and values [rows, key heads, width, dim]; returns [rows · tokens,
    heads · dim].

    The query heads that share a key head are put side by side with the tokens, so that keys and values are read as
    they lie: no head is repeated.
    """
    act = _attend_few if part.group.tokens <= FEW_TOKENS else _attend_prompts
    return act(part, query, keys, values)


def _attend_few(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One token a row, or a few: two batched products. The fused kernel, made for many, is slower here on a CPU."""
    rows, key_heads, _, size = keys.shape
    query = _by_key_head(_spread(query, part.live, rows), part.group, key_heads).flatten(0, 1)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    scores = torch.baddbmm(part.mask, query, keys.transpose(1, 2), alpha=size**-0.5)
    attended = _by_token(torch.bmm(scores.softmax(-1), values), part.group, key_heads)
    return attended if part.live is None else attended[part.live]


def _attend_prompts(part: _Part, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    query = _by_key_head(query, part.group, keys.shape[1])
    out = functional.scaled_dot_product_attention(query, keys, values, attn_mask=part.mask)
    return _by_token(out, part.group, keys.shape[1])


def _by_key_head(query: Tensor, group: AttentionGroup, key_heads: int) -> Tensor:
    """[rows · tokens, heads, dim] to [rows, key heads, heads to a key head · tokens, dim]."""
    query = query.view(group.rows, group.tokens, key_heads, -1, query.shape[-1])
    return query.permute(0, 2, 3, 1, 4).flatten(2, 3)


def _by_token(attended: Tensor, group: AttentionGroup, key_heads: int) -> Tensor:
    """And back: to [rows · tokens, heads · dim]."""
    size = attended.shape[-1]
    attended = attended.view(group.rows, key_heads, -1, group.tokens, size)
    return attended.permute(0, 3, 1, 2, 4).reshape(group.rows * group.tokens, -1)


def _spread(states: Tensor, live: Tensor | None, rows: int) -> Tensor:
    """Put states [live rows, …] where they belong among `rows`; zeros between."""
    if live is None:
        return states
    return states.new_zeros(rows, *states.shape[1:]).index_copy_(0, live, states)


def _padded(values: Tensor, padding: int) -> Tensor:
    """Zeros behind a step's tokens. Attention leaves them out; products compute them, and nobody reads that."""
    return functional.pad(values, (0, padding)) if padding else values


def _kept(chunks: Sequence[Chunk]) -> list[int]:
    """Indices, in the line, of the tokens that another one follows from: the last ones of each chunk."""
    kept: list[int] = []
    end = 0
    for chunk in chunks:
        end += chunk.stop - chunk.start
        kept += range(end - chunk.gives, end)
    return kept
