"""Runs any model of transformers: prompts packed in one line, then one token for each slot. Tensors only, no decisions.

A model is anything that takes `position_ids`, a 4D `attention_mask`, a Cache and `logits_to_keep`, as decoder-only
models in transformers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from gpu_worker.engines.continuous.kvcache.slots import (
    COLUMN_BUCKET,
    LayerShape,
    PackedKvAccess,
    RowKvAccess,
    SlotCache,
)
from gpu_worker.engines.continuous.rounding import round_up
from gpu_worker.engines.continuous.sampling import NOT_FINITE, choose
from gpu_worker.engines.continuous.scheduler import step_cost
from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from promptq.contract.errors import EngineError


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
        self._masked = torch.finfo(model.dtype).min

    def run(self, chunks: Sequence[Chunk]) -> list[int]:
        """See Runner. Raises ArithmeticError when the numbers of a prompt are not finite."""
        running = [chunk for chunk in chunks if chunk.decodes]
        prompts = [chunk for chunk in chunks if not chunk.decodes]
        tokens = self._decode(running) if running else []
        return tokens + (self._prefill(prompts) if prompts else [])

    @torch.inference_mode()
    def _prefill(self, chunks: Sequence[Chunk]) -> list[int]:
        """Compute prompt tokens; returns the first token of each chunk that completes its prompt, in order.

        Raises:
            ArithmeticError: some row's numbers are not finite. In one line they spoil the other rows' (a masked NaN
                is still NaN), so it is left to the caller to find the row by running fewer.
        """
        rows, slots, columns = self._places([(chunk, chunk.start) for chunk in chunks])
        whole = self._places([(chunk, 0) for chunk in chunks]) if any(chunk.start for chunk in chunks) else None
        self.cache.access = PackedKvAccess(slots, columns, whole and (whole[1], whole[2]))
        read_rows, _, read_columns = whole or (rows, slots, columns)
        visible = (rows[:, None] == read_rows) & (read_columns <= columns[:, None])
        ids = self._tensor([list(chain.from_iterable(chunk.tokens for chunk in chunks))])
        logits = self._forward(ids, columns[None], visible[None, None], self._ends(chunks))
        tokens = choose(logits[0], chunks)
        if NOT_FINITE in tokens:
            raise ArithmeticError("the model's output is not a finite number")
        return tokens

    @torch.inference_mode()
    def _decode(self, chunks: Sequence[Chunk]) -> list[int]:
        """Compute each row's newest token; returns the next ones, in order."""
        first = min(chunk.slot for chunk in chunks)
        size = max(chunk.slot for chunk in chunks) + 1 - first
        at = [chunk.slot - first for chunk in chunks]
        ids, positions, columns = self._line(chunks, at, size)
        width = round_up(max(chunk.stop for chunk in chunks), COLUMN_BUCKET)
        self.cache.access = RowKvAccess(slice(first, first + size), self._tensor(range(size)), columns, width)
        visible = torch.arange(width, device=self._device) <= positions[:, None]
        logits = self._forward(ids[:, None], positions[:, None], visible[:, None, None], 1)
        return choose(logits[at, 0], chunks)

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

    def _forward(self, ids: Tensor, positions: Tensor, visible: Tensor, keep: Tensor | int) -> Tensor:
        mask = torch.zeros_like(visible, dtype=self._model.dtype).masked_fill_(~visible, self._masked)
        logits: Tensor = run(self._model, ids, positions, mask, keep, past_key_values=self.cache).logits
        return logits

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def run(model: PreTrainedModel, ids: Tensor, positions: Tensor, mask: Tensor, keep: Tensor | int, **kwargs: Any) -> Any:
    """One forward pass. Ids and positions [rows, tokens], mask [rows, 1, tokens, columns] to be added."""
    return model(
        input_ids=ids, position_ids=positions, attention_mask=mask, logits_to_keep=keep, use_cache=True, **kwargs
    )


@torch.inference_mode()
def layer_shapes(model: PreTrainedModel, context: int) -> list[LayerShape]:
    """What each layer keeps per token, found by running one token.

    Raises:
        EngineError: the model keeps something else than keys and values of all tokens.
    """
    zero = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    mask = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
    try:
        layers = run(model, zero, zero, mask, 1).past_key_values.layers
    except Exception as error:
        raise EngineError(f"{type(model).__name__} cannot be run by this engine: {error}") from error
    return [_layer_shape(layer, model, context) for layer in layers]


def _layer_shape(layer: Any, model: PreTrainedModel, context: int) -> LayerShape:
    window = getattr(layer, "sliding_window", context)
    if not issubclass(type(layer), DynamicLayer):
        raise EngineError(f"{type(model).__name__} has {type(layer).__name__}, which this engine cannot batch")
    if window < context:
        raise EngineError(f"the model attends to {window} tokens only: set PROMPTQ_CONTEXT_LENGTH={window} or less")
    keys, values = layer.keys, layer.values
    return LayerShape((keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3]), keys.dtype)
