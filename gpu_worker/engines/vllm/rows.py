"""A row in vLLM: what it has so far, and what a step does to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpu_worker.engines.base import Event, FinishReason, RowEnd
from gpu_worker.engines.continuous.scheduler.sequence import Failure, SequenceState
from gpu_worker.engines.continuous.text.text_stream import TextStream
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.queues import PRIORITIES

FAILED: Final = ("engine_error", "vLLM gave the row up")


@dataclass(slots=True, eq=False)
class VllmRow:
    """One live row.

    Attributes:
        adapter: vLLM's LoRARequest; None: none.
        is_running: whether vLLM has it.
        has_token: whether it had a token of vLLM before this step.
        ended: how, once it has.
        text, tokens, logprobs: what this step added.
    """

    sequence: SequenceState
    stream: TextStream
    adapter: Any = None
    is_running: bool = False
    has_token: bool = False
    ended: RowEnd | None = None
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The job's id, which vLLM has it under too."""
        return self.sequence.row.id

    @property
    def urgency(self) -> int:
        """As vLLM has it: the least goes first."""
        return PRIORITIES.index(self.sequence.row.priority)

    def resume(self) -> None:
        """Go on where an earlier run stopped. It may have come to the end of the text, and not to storing that."""
        sequence, tokens = self.sequence, self.sequence.row.progress
        for token in tokens:
            self.stream.push(token)
        sequence.resume(tokens)
        if self.stream.stopped:
            sequence.end(FinishReason.STOP)
        elif tokens and sequence.generated >= sequence.limit:
            sequence.end(FinishReason.LENGTH)

    def take(self, tokens: Iterable[int], logprobs: Sequence[TokenLogprob]) -> None:
        """Take what vLLM generated, up to what ends the text."""
        for place, token in enumerate(tokens):
            if self.ended:
                return
            if token in self.sequence.ends:
                self.finish(FinishReason.STOP)
            else:
                self._append(token, logprobs[place : place + 1])

    def finish(self, reason: FinishReason, error: Failure | None = None) -> None:
        """End, with the text so far."""
        # After an error the decoder itself may be the one at fault.
        self.text += self.stream.flush() if error is None else ""
        sequence = self.sequence
        reused = min(sequence.reused, sequence.prompt_tokens)
        size, generated = sequence.batch_size, sequence.generated
        self.ended = RowEnd(reason, self.stream.text, sequence.prompt_tokens, generated, size, error, reused)

    def event(self) -> Event | None:
        """What was added since the last one; None: nothing."""
        if not (self.tokens or self.text or self.ended):
            return None
        event = Event(self.id, self.text, self.tokens, self.ended, self.logprobs)
        self.text, self.tokens, self.logprobs = "", [], []
        return event

    def _append(self, token: int, logprobs: Sequence[TokenLogprob]) -> None:
        sequence = self.sequence
        sequence.append(token)
        self.tokens.append(token)
        self.logprobs.extend(logprobs)
        self.text += self.stream.push(token)
        if self.stream.stopped or self._is_whole(token):
            self.finish(FinishReason.STOP)
        elif sequence.generated >= sequence.limit:
            self.finish(FinishReason.LENGTH)

    def _is_whole(self, token: int) -> bool:
        """Whether the text fits what it must and is whole, and no token is there to say so."""
        if self.sequence.grammar is None:
            return False
        self.sequence.grammar.accept(token)
        return self.sequence.grammar.is_whole
