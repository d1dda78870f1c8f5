"""A row as the engine sees it: how far its prompt is computed and its text generated. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_worker.engine.base import FinishReason, Row
from gpu_worker.engine.faults import Failure


@dataclass(slots=True, eq=False)
class Sequence:
    """One live row.

    Attributes:
        prompt: token ids.
        limit: the most tokens it may generate: `max_tokens`, or what is left of the context.
        seed: decides every draw of this row.
        slot: where its KV memory is; None until the scheduler admits it.
        computed: tokens whose keys and values are in the slot.
        generated: completion tokens so far; an end-of-sequence token is not one.
        last: the newest token, not yet in the slot.
        batch_size: the most rows that were live in one step with it, itself included.
        passed_over: steps in which it waited for prefill and got none.
        ending: how it is to end at the next step, with the error if that is the reason.
    """

    row: Row
    prompt: list[int]
    limit: int
    seed: int = 0
    slot: int | None = None
    computed: int = 0
    generated: int = 0
    last: int = 0
    batch_size: int = 0
    passed_over: int = 0
    ending: tuple[FinishReason, Failure | None] | None = None

    @property
    def is_prefilled(self) -> bool:
        """Whether the whole prompt is in the slot, so that the row decodes."""
        return self.computed >= len(self.prompt)

    def end(self, reason: FinishReason, error: Failure | None = None) -> None:
        """Note how the row is to end. The first reason stands."""
        if self.ending is None:
            self.ending = (reason, error)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens [start, stop) of one sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def tokens(self) -> list[int]:
        return self.sequence.prompt[self.start : self.stop]

    @property
    def completes(self) -> bool:
        """Whether the prompt ends in this chunk, so that it gives the row its first token."""
        return self.stop == len(self.sequence.prompt)
