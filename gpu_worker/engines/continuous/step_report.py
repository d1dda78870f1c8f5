"""What the engine says of itself and of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.base import EngineInfo, Event, RowEnd, StepStats
from gpu_worker.engines.continuous.able import capabilities
from gpu_worker.engines.continuous.loading.fingerprint import model_identity
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.step_passes import StepPasses
from gpu_worker.engines.kv_memory import KvTokens
from promptq.contract.logprobs import TokenLogprob


@dataclass(slots=True)
class RowReport:
    """What a step has done to one row so far."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: RowEnd | None = None

    def event(self, row_id: str) -> Event:
        """The same, when the step is over."""
        return Event(row_id, self.text, self.tokens, self.end, self.logprobs)


def step_stats(passes: StepPasses[Chosen], right: int, seconds: float, memory: KvTokens) -> StepStats:
    """What a step cost, of whose drafts so many were right, and how full it left the memory."""
    chunks = [*passes.computed, *(chunk for chunk, _ in passes.failed)]
    rows = sum(chunk.decodes for chunk in chunks)
    prompts = [chunk for chunk in chunks if not chunk.decodes]
    return StepStats(
        rows=rows,
        prefill_tokens=sum(chunk.stop - chunk.start for chunk in prompts),
        # Copied tokens come before the first chunk that is computed.
        reused_tokens=sum(chunk.start for chunk in prompts if chunk.start == chunk.sequence.reused),
        prefill_seconds=seconds if prompts else 0.0,
        decode_seconds=seconds if rows else 0.0,
        right_drafts=right,
        wrong_drafts=sum(len(chunk.drafts) for chunk in chunks) - right,
        kv_tokens=memory,
        too_large=passes.too_large,
    )


def describe(
    model: PreTrainedModel, runner: Runner, name: str, context: int, tokenizer: str, fingerprint: str, *, tools: bool
) -> EngineInfo:
    """The engine, for the worker's registration; the details for its log."""
    details = {
        "runner": type(runner).__name__,
        "attention": str(model.config._attn_implementation),
        "linear": runner.linear_kind,
        "kv_layout": runner.cache.layout,
        "kv_tokens": str(runner.cache.tokens),
        "kv_bytes": str(runner.cache.bytes),
        "torch": torch.__version__,
    }
    dtype = str(model.dtype).removeprefix("torch.")
    return EngineInfo(
        name,
        str(model.device),
        dtype,
        runner.cache.slots,
        context,
        details,
        tokenizer,
        capabilities(tools=tools),
        model_identity(fingerprint, context, dtype),
    )
