"""Runs a GraphModel: running rows as steps of fixed shapes, everything else as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kvcache.base import KvCache
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.runners.base import Pending
from gpu_worker.engines.continuous.runners.graph.attention import QueryRows, flash_attention, plain_attention
from gpu_worker.engines.continuous.runners.graph.buckets import BUCKETS, bucket_for
from gpu_worker.engines.continuous.runners.graph.captures import Captures
from gpu_worker.engines.continuous.runners.graph.inputs import InputLayout, StepNumbers, StepTensors, running_sizes
from gpu_worker.engines.continuous.runners.graph.model import GraphModel
from gpu_worker.engines.continuous.runners.graph.pending import PendingStep
from gpu_worker.engines.continuous.runners.graph.store_views import spare_vector, store_views
from gpu_worker.engines.continuous.runners.layer_shapes import rope_switches
from gpu_worker.engines.continuous.sampling import NOT_FINITE, choose
from gpu_worker.engines.continuous.scheduler import step_cost
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState


@dataclass(frozen=True, slots=True)
class _Output:
    """What a pass gives for each token that another one follows from.

    Attributes:
        logits: [tokens, vocabulary].
        greedy: the likeliest token, or NOT_FINITE, [tokens].
    """

    logits: Tensor
    greedy: Tensor


class GraphRunner:
    """Computes chunks in the memory of one cache. See `base.Runner` for the contract.

    On CUDA it takes float16 and bfloat16. On a CPU the same steps run in any format, without graphs and with a plain
    attention: that is what it is tested by.
    """

    linear_kind = "torch"

    def __init__(self, model: PreTrainedModel, cache: KvCache) -> None:
        self.cache = cache
        self._device = model.device
        self._on_cuda = model.device.type == "cuda"
        self.step_cost = step_cost.CUDA_GRAPHS if self._on_cuda else replace(step_cost.CUDA_GRAPHS, free_tokens=6)
        attention = plain_attention if model.device.type == "cpu" else flash_attention
        # Whole buckets of columns may be more than the context, which is within all switches.
        positions = min([cache.columns, *rope_switches(model)])
        self._model = GraphModel(model, store_views(cache), attention, positions)
        self._head_offsets = torch.arange(cache.key_heads, device=self._device) * cache.head_stride
        # What the step before chose, for a step that begins before the host has seen it.
        self._chosen = torch.zeros(max(BUCKETS[-1], cache.slots), dtype=torch.int32, device=self._device)
        self._not_finite = torch.tensor(NOT_FINITE, device=self._device)
        self._layout = InputLayout(cache.start, spare_vector(cache), len(self._chosen))
        self._captures = Captures(self._running, self._idle, self._chosen) if self._on_cuda else None
        if self._on_cuda:
            _sum_in_float32()

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Chosen:
        return self._submitted(chunks, {}).collect()

    @torch.inference_mode()
    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        count = sum(chunk.gives for chunk in chunks)
        return self._pass(chunks, {}).logits[:count].clone()  # the next step writes over them

    @torch.inference_mode()
    def submit(self, chunks: Sequence[Chunk], after: Pending | None = None) -> PendingStep:
        """Begin a step, whose tokens `collect` waits for.

        Args:
            after: the step submitted last, if its tokens are not known yet. Each of these chunks then follows one of
                its chunks, by the likeliest token.
        """
        return self._submitted(chunks, after.places if after else {})

    def _submitted(self, chunks: Sequence[Chunk], before: Mapping[SequenceState, int]) -> PendingStep:
        output = self._pass(chunks, before)
        count = sum(chunk.gives for chunk in chunks)
        if all(chunk.sequence.is_plain for chunk in chunks):
            return PendingStep(chunks, output.greedy[:count])
        return PendingStep(chunks, choose(output.logits[:count], chunks))

    def _pass(self, chunks: Sequence[Chunk], before: Mapping[SequenceState, int]) -> _Output:
        if not all(chunk.decodes for chunk in chunks):
            return self._mixed(self._layout.mixed(chunks, before))
        bucket = bucket_for(sum(chunk.stop - chunk.start for chunk in chunks))
        numbers = self._layout.running(chunks, before, bucket)
        line = numbers.line(pinned=self._on_cuda)
        if bucket and self._captures:
            return self._captures.run(bucket, line)
        return self._running(len(numbers.ids), line.to(self._device, non_blocking=True))

    def _mixed(self, numbers: StepNumbers) -> _Output:
        line = numbers.line(pinned=self._on_cuda).to(self._device, non_blocking=True)
        most_queries = max(end - first for first, end in pairwise(numbers.first_queries))
        return self._computed(StepTensors.of(line, numbers.sizes), most_queries, max(numbers.lengths))

    def _running(self, tokens: int, line: Tensor) -> _Output:
        """A step of one token a row, of so many with the padding; the line is on the device."""
        return self._computed(StepTensors.of(line, running_sizes(tokens)), 1, self.cache.columns)

    def _idle(self, bucket: int) -> Tensor:
        return self._layout.running([], {}, bucket).line(pinned=False)

    def _computed(self, given: StepTensors, most_queries: int, most_keys: int) -> _Output:
        rows = QueryRows(given.first_queries, given.starts, given.lengths, most_queries, most_keys)
        ids = torch.cat((self._chosen, given.ids)).index_select(0, given.sources)
        vectors = given.places[:, None] + self._head_offsets
        kept = given.kept if len(given.kept) < len(ids) else None
        logits = self._model(ids, given.positions, vectors, rows, kept)
        top, tokens = logits.max(-1)
        newest = tokens[: len(self._chosen)]
        self._chosen[: len(newest)].copy_(newest)
        return _Output(logits, torch.where(top.abs() < torch.inf, tokens, self._not_finite))


def _sum_in_float32() -> None:
    """Have partial sums of products kept in float32: in 16 bits a row's numbers depend on how a product is divided."""
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
