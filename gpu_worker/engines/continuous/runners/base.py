"""What the engine asks of a runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from gpu_worker.engines.continuous.kvcache.base import KvCache
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
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


class Pending(Protocol):
    """A step that was submitted.

    Attributes:
        places: index of each row's newest token among those that the step gives.
    """

    places: Mapping[SequenceState, int]

    def collect(self) -> Chosen:
        """Wait for its tokens. Errors of the device show here."""
        ...


@runtime_checkable
class OverlappingRunner(Runner, Protocol):
    """A runner whose device computes a step while the host reads the one before."""

    def submit(self, chunks: Sequence[Chunk], after: Pending | None = None) -> Pending:
        """Begin a step. Nothing that its chunks say of their rows is looked at afterwards.

        Args:
            after: the step that was submitted last, if its tokens are not known yet. Each of these chunks
                then follows one of its chunks, with the likeliest token.
        """
        ...
