"""How a row begins: its request becomes a sequence, with all that its tokens are chosen by."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set
from typing import Any, Protocol

import torch

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous import penalties
from gpu_worker.engines.continuous.grammar import Grammars
from gpu_worker.engines.continuous.retry_halves import failure
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
    ) -> None:
        self._context = context
        self._rules = rules
        self._special = special
        self._prompts = prompts
        self._grammars = grammars
        self._vocabulary = vocabulary
        self.stops = rules.stops

    def sequence(self, row: Row) -> SequenceState:
        """The row as the scheduler takes it. Where its request is at fault, it ends with that at the next step."""
        request = row.request
        seed = secrets.randbits(63) if request.seed is None else request.seed
        sequence = SequenceState(row, [], request.max_tokens, seed)
        try:
            sequence.prompt = self._prompts.encode(request)
            self._check_ids(request.prompt_token_ids or ())
            sequence.drafter.extend(sequence.prompt)
            sequence.ends = self._rules.ends | self._special.ends(request.stop)
            self._fit(sequence)
            self._edit_logits(sequence)
        except Exception as error:
            sequence.end(FinishReason.ERROR, failure(error))
        return sequence

    def _edit_logits(self, sequence: SequenceState) -> None:
        """Note what is done to its logits: what the model asks for, then what the request does."""
        request, vocabulary = sequence.row.request, self._vocabulary
        sequence.processors = self._rules.processors(sequence.prompt, sequence.limit, request)
        sequence.counts = penalties.counts_for(request, sequence.prompt, vocabulary)
        sequence.bias = penalties.bias_for(request, vocabulary, self._rules.device)
        sequence.grammar = self._grammars.for_request(request)
        if request.logprobs and IS_AVAILABLE:
            self._grammars.read_vocabulary()

    def _check_ids(self, ids: Sequence[int]) -> None:
        if ids and max(ids) >= self._vocabulary:
            message = f"the model has no token {max(ids)}; its tokens are 0 to {self._vocabulary - 1}"
            raise InvalidRequest(f"prompt_token_ids: {message}", param="prompt_token_ids")

    def _fit(self, sequence: SequenceState) -> None:
        length = len(sequence.prompt)
        sequence.limit = min(sequence.limit, self._context - length)
        if length + 1 > self._context:
            message = f"the prompt has {length} tokens and the context is {self._context}, prompt and text together"
            sequence.end(FinishReason.ERROR, ("prompt_too_long", message))
