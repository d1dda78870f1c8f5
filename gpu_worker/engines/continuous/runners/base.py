"""What the engine asks of a runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from gpu_worker.engines.continuous.kvcache.base import KvCache
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from gpu_worker.engines.continuous.scheduler.step_cost import StepCost


class Runner(Protocol):
    """Computes chunks in the slots of one cache.

    Changes no sequence, and writes only what it writes again when repeated: so a step that failed can be tried anew
    with fewer rows.

    Attributes:
        step_cost: how long its steps take; free_tokens is 0 if chunks of running rows may have no drafts.
        linear_kind: what multiplies with the weights: `kernels-` and what they are compiled for, `onednn` or `torch`.
    """

    step_cost: StepCost
    linear_kind: str

    @property
    def cache(self) -> KvCache:
        """What it computes in."""
        ...

    def run(self, chunks: Sequence[Chunk]) -> Chosen:
        """Compute chunks, of running rows first and by slot; returns the tokens that each gives, in order.

        NOT_FINITE stands for the token of a row whose numbers are not.
        """
        ...

    def logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """What `run` chooses the tokens by, [tokens that the chunks give, vocabulary]."""
        ...
