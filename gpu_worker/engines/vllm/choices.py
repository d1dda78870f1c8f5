"""How tokens are chosen: what requests ask for, done to vLLM's logits by the continuous engine's own rules.

vLLM itself is told to be greedy. A request's penalties, bias, schema and draws go by its seed and its own tokens, those
of earlier runs included; vLLM's would begin anew where a row goes on. Of a row that draws, all tokens but the drawn one
are forbidden here. vLLM makes this object where it samples: with several GPUs, in processes of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous import grammar, penalties
from gpu_worker.engines.continuous.draws import draw
from gpu_worker.engines.continuous.grammar import Grammars
from gpu_worker.engines.continuous.sampling import draws
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.vllm.row_parameters import KEY, RowParameters, grammars_of

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Chosen:
    """A row of vLLM's batch that is not simply greedy.

    Attributes:
        tokens: what it has generated here; vLLM appends to it.
        seen: how many of them the sequence has taken.
    """

    sequence: SequenceState
    tokens: Sequence[int]
    seen: int = 0

    def catch_up(self) -> None:
        """Take the tokens that came since."""
        for token in self.tokens[self.seen :]:
            self.sequence.append(token)
            if self.sequence.grammar:
                self.sequence.grammar.accept(token)
        self.seen = len(self.tokens)


class RequestChoices(LogitsProcessor):  # type: ignore[misc]
    """One of vLLM's logits processors, for all requests of its batch."""

    def __init__(self, vllm_config: Any, device: torch.device, _is_pin_memory: bool) -> None:
        self._config = vllm_config
        self._device = device
        self._vocabulary = int(vllm_config.model_config.get_vocab_size())
        self._rows: dict[int, _Chosen] = {}

    def is_argmax_invariant(self) -> bool:
        """It changes which token is the likeliest, that of greedy rows too."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow vLLM's batch: rows by their index in it. Later entries go by what the earlier ones left."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._rows.pop(index, None)
        for index, params, prompt, tokens in batch_update.added:
            self._rows.pop(index, None)
            if parameters := (params.extra_args or {}).get(KEY):
                self._rows[index] = _Chosen(self._sequence(parameters, prompt or []), tokens)
        for source, target, direction in batch_update.moved:
            self._move(source, target, swap=direction is MoveDirectionality.SWAP)

    def apply(self, logits: Tensor) -> Tensor:
        """Of rows that ask for something, leave what may be chosen; of those that draw, the drawn token alone.

        Args:
            logits: [rows, vocabulary], float32; changed in place.
        """
        indices = sorted(index for index in self._rows if index < len(logits))
        if not indices:
            return logits
        for index in indices:
            self._rows[index].catch_up()
        chunks = [_next(self._rows[index].sequence) for index in indices]
        some = grammar.mask(penalties.apply(logits[indices], chunks), chunks)
        _leave_drawn(some, chunks)
        logits[indices] = some
        return logits

    @cached_property
    def _grammars(self) -> Grammars:
        return grammars_of(self._config)

    def _move(self, source: int, target: int, *, swap: bool) -> None:
        moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
        if moved:
            self._rows[target] = moved
        if swap and other:
            self._rows[source] = other

    def _sequence(self, parameters: RowParameters, tokens: list[int]) -> SequenceState:
        request, own = parameters.request, len(tokens) - parameters.resumed
        sequence = SequenceState(Row("", request), tokens[:own], request.max_tokens, parameters.seed)
        sequence.counts = penalties.counts_for(request, sequence.prompt, self._vocabulary)
        sequence.bias = penalties.bias_for(request, self._vocabulary, self._device)
        sequence.grammar = self._grammars.for_request(request)
        sequence.resume(tokens[own:])
        if sequence.grammar:
            sequence.grammar.begin(tokens[own:])
        return sequence


def _next(sequence: SequenceState) -> Chunk:
    """What gives the next token, as the rules take it."""
    return Chunk(sequence, len(sequence.prompt), len(sequence.prompt) + 1)


def _leave_drawn(logits: Tensor, chunks: Sequence[Chunk]) -> None:
    """Of rows that draw, forbid all tokens but the drawn one, in place."""
    drawn = [row for row, chunk in enumerate(chunks) if chunk.sequence.row.request.temperature]
    if drawn:
        tokens = draw(logits[drawn], draws(chunks[row] for row in drawn))
        logits[drawn] = -torch.inf
        logits[torch.tensor(drawn, device=logits.device), tokens] = 0.0
