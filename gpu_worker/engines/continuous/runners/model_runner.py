"""Runs any model of transformers: prompts packed in one line, then one token for each slot. Tensors only, no decisions.

A model is anything that takes `position_ids`, a 4D `attention_mask` (one for each type of layer, if some attend to a
window), a Cache and `logits_to_keep`, as decoder-only models in transformers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kvcache.slots import (
    COLUMN_BUCKET,
    PackedKvAccess,
    RowKvAccess,
    SlotCache,
)
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.runners.masks import Mask, Masks
from gpu_worker.engines.continuous.sampling import NOT_FINITE, choose
from gpu_worker.engines.continuous.scheduler import step_cost
from gpu_worker.engines.continuous.scheduler.sequence import Chunk


class ModelRunner:
    """The runner for models that PackedRunner does not know."""

    linear_kind = "torch"

    def __init__(self, model: PreTrainedModel, cache: SlotCache) -> None:
        self.cache = cache
        self.step_cost = replace(
            step_cost.CUDA if model.device.type == "cuda" else step_cost.CPU, free_tokens=0, bucket=1
        )
        self._model = model
        self._device = model.device
        self._masks = Masks(cache.shapes, model.dtype)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Chosen:
        """See Runner.

        Raises:
            ArithmeticError: some prompt's numbers are not finite. In one line they spoil the other prompts' (a masked
                NaN is still NaN), so it is left to the caller to find the row by running fewer.
        """
        chosen = choose(self.logits(chunks), chunks)
        running = sum(chunk.decodes for chunk in chunks)
        if NOT_FINITE in chosen.tokens[running:]:
            raise ArithmeticError("the model's output is not a finite number")
        return chosen

    @torch.inference_mode()
    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        running = [chunk for chunk in chunks if chunk.decodes]
        prompts = [chunk for chunk in chunks if not chunk.decodes]
        passes = [self._decode(running)] if running else []
        passes += [self._prefill(prompts)] if prompts else []
        return passes[0] if len(passes) == 1 else torch.cat(passes)

    def _prefill(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute prompt tokens; returns the logits behind each chunk that completes its prompt, in order."""
        rows, slots, columns = self._places([(chunk, chunk.start) for chunk in chunks])
        whole = self._places([(chunk, 0) for chunk in chunks]) if any(chunk.start for chunk in chunks) else None
        self.cache.access = PackedKvAccess(slots, columns, whole and (whole[1], whole[2]))
        read_rows, _, read_columns = whole or (rows, slots, columns)
        visible = (rows[:, None] == read_rows) & (read_columns <= columns[:, None])
        mask = self._masks(visible[None, None], columns[:, None], read_columns)
        ids = self._tensor([list(chain.from_iterable(chunk.tokens for chunk in chunks))])
        return self._forward(ids, columns[None], mask, self._ends(chunks))[0]

    def _decode(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute each row's newest token; returns the logits behind it, in order."""
        first = min(chunk.slot for chunk in chunks)
        size = max(chunk.slot for chunk in chunks) + 1 - first
        at = [chunk.slot - first for chunk in chunks]
        ids, positions, columns = self._line(chunks, at, size)
        width = round_up(max(chunk.stop for chunk in chunks), COLUMN_BUCKET)
        self.cache.access = RowKvAccess(slice(first, first + size), self._tensor(range(size)), columns, width)
        read, at_most = torch.arange(width, device=self._device), positions[:, None, None, None]
        mask = self._masks(read <= at_most, at_most, read)
        return self._forward(ids[:, None], positions[:, None], mask, 1)[at, 0]

    def _line(self, chunks: Sequence[Chunk], at: list[int], size: int) -> Tensor:
        """Token, position and column of every slot in the range, [3, size].

        A slot that does not decode takes part too: it writes to the last column, which no row reads,
        because a row that fills the context ends with the token that would be there.
        """
        line = [[0, 0, self.cache.columns - 1]] * size
        for index, chunk in zip(at, chunks, strict=True):
            line[index] = [chunk.sequence.last, chunk.start, chunk.start]
        return self._tensor(line).T

    def _places(self, chunks: list[tuple[Chunk, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Row, slot and column of every token from each chunk's given start to its stop, each [tokens]."""
        counts = self._tensor([chunk.stop - start for chunk, start in chunks])
        rows = torch.arange(len(chunks), device=self._device).repeat_interleave(counts)
        slots = self._tensor([chunk.slot for chunk, _ in chunks])[rows]
        spans = [torch.arange(start, chunk.stop, device=self._device) for chunk, start in chunks]
        return rows, slots, torch.cat(spans)

    def _ends(self, chunks: Sequence[Chunk]) -> Tensor:
        """Index of the last token of each prompt that is completed, in the packed line."""
        ends, end = [], 0
        for chunk in chunks:
            end += chunk.stop - chunk.start
            ends += [end - 1] * chunk.gives
        return self._tensor(ends)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Mask, keep: Tensor | int) -> Tensor:
        logits: Tensor = run(self._model, ids, positions, mask, keep, past_key_values=self.cache).logits
        return logits

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def run(model: PreTrainedModel, ids: Tensor, positions: Tensor, mask: Mask, keep: Tensor | int, **kwargs: Any) -> Any:
    """One forward pass. Ids and positions [rows, tokens], masks [rows, 1, tokens, columns] to be added."""
    return model(
        input_ids=ids, position_ids=positions, attention_mask=mask, logits_to_keep=keep, use_cache=True, **kwargs
    )
