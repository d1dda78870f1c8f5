"""How a row begins: its request becomes a sequence, with all that its tokens are chosen by."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set
from typing import Any, Protocol

import torch

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous import penalties
from gpu_worker.engines.continuous.grammar import Grammars
from gpu_worker.engines.continuous.retry_halves import row_failure
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.text.prompts import PromptEncoder
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from gpu_worker.engines.continuous.vocabulary import IS_AVAILABLE
from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest


class Rules(Protocol):
    """What a model asks for in all its texts; see GenerationRules."""

    @property
    def ends(self) -> Set[int]: ...
    @property
    def stops(self) -> Sequence[str]: ...
    @property
    def device(self) -> torch.device: ...
    def processors(self, prompt: list[int], limit: int, request: GenerateRequest) -> Any: ...


class RowStarts:
    """Makes the sequences of one engine.

    Args:
        context: the most tokens of a row, prompt and text.
        vocabulary: how many tokens the logits have.
        embedded: how many tokens the model can be given. A GPU that is given another one is lost to the process.

    Attributes:
        stops: strings that end every text.
    """

    def __init__(
        self,
        context: int,
        rules: Rules,
        special: SpecialTokens,
        prompts: PromptEncoder,
        grammars: Grammars,
        vocabulary: int,
        embedded: int,
    ) -> None:
        self._context = context
        self._rules = rules
        self._special = special
        self._prompts = prompts
        self._grammars = grammars
        self._vocabulary = vocabulary
        self._embedded = embedded
        self.stops = rules.stops

    def sequence(self, row: Row) -> SequenceState:
        """The row as the scheduler takes it. Where its request is at fault, it ends with that at the next step."""
        request = row.request
        seed = secrets.randbits(63) if request.seed is None else request.seed
        sequence = SequenceState(row, [], request.max_tokens, seed)
        try:
            sequence.prompt = self._prompts.encode(request)
            self._check_ids(sequence)
            sequence.drafter.extend(sequence.prompt)
            sequence.ends = self._rules.ends | self._special.ends(request.stop)
            self._fit(sequence)
            self._edit_logits(sequence)
        except Exception as error:
            sequence.end(FinishReason.ERROR, row_failure(error))
        return sequence

    def unknown(self, ids: Sequence[int]) -> str:
        """What is wrong with token ids that the model is to be given; an empty string: nothing."""
        if not ids or (min(ids) >= 0 and max(ids) < self._embedded):
            return ""
        wrong = next(token for token in ids if not 0 <= token < self._embedded)
        return f"the model has no token {wrong}; its tokens are 0 to {self._embedded - 1}"

    def _edit_logits(self, sequence: SequenceState) -> None:
        """Note what is done to its logits: what the model asks for, then what the request does."""
        request, vocabulary = sequence.row.request, self._vocabulary
        sequence.processors = self._rules.processors(sequence.prompt, sequence.limit, request)
        sequence.counts = penalties.counts_for(request, sequence.prompt, vocabulary)
        sequence.bias = penalties.bias_for(request, vocabulary, self._rules.device)
        sequence.grammar = self._grammars.for_request(request)
        if request.logprobs and IS_AVAILABLE:
            self._grammars.read_vocabulary()

    def _check_ids(self, sequence: SequenceState) -> None:
        """Whoever they come from: a tokenizer, too, may have tokens that were added and never embedded."""
        request = sequence.row.request
        if wrong := self.unknown(sequence.prompt):
            fields = ("prompt_token_ids", "messages")
            name = next((field for field in fields if getattr(request, field) is not None), "prompt")
            raise InvalidRequest(f"{name}: {wrong}", param=name)
        if wrong := self.unknown(sequence.row.progress):
            raise ValueError(f"an earlier run's tokens: {wrong}")

    def _fit(self, sequence: SequenceState) -> None:
        length = len(sequence.prompt)
        sequence.limit = min(sequence.limit, self._context - length)
        if length + 1 > self._context:
            message = f"the prompt has {length} tokens and the context is {self._context}, prompt and text together"
            sequence.end(FinishReason.ERROR, ("prompt_too_long", message))
