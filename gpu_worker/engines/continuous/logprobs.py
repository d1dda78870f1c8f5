"""How likely the tokens were, and which others: of the model's own logits, before whatever a request does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from gpu_worker.engines.continuous.vocabulary import IS_AVAILABLE, Vocabulary
from promptq.contract.logprobs import TokenLogprob, token_logprob

LEAST = -9999.0
"""In place of minus infinity, which JSON does not have; OpenAI's own."""
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Score:
    """One token's natural log probability, and the likeliest tokens with theirs, the likeliest first."""

    logprob: float
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a step chose.

    Attributes:
        tokens: one id for each position.
        scores: by position, where a row asks for them.
    """

    tokens: list[int]
    scores: Mapping[int, Score] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """Positions of a step of which the log probabilities are asked for.

    Attributes:
        rows: their indices.
        tops: how many of the likeliest tokens each wants.
        logprobs: [rows, vocabulary], float32.
    """

    rows: list[int]
    tops: list[int]
    logprobs: Tensor

    def scores(self, tokens: Sequence[int]) -> dict[int, Score]:
        """By position, for the tokens that were chosen at all of the step's positions."""
        chosen = torch.tensor([max(tokens[row], 0) for row in self.rows], device=self.logprobs.device)
        own = _clamped(self.logprobs.gather(-1, chosen[:, None]))[:, 0].tolist()
        values, ids = self.logprobs.topk(min(max(self.tops), self.logprobs.shape[-1]))
        likeliest = zip(ids.tolist(), _clamped(values).tolist(), strict=True)
        return {
            row: Score(logprob, list(zip(some_ids, some, strict=True))[:top])
            for row, top, logprob, (some_ids, some) in zip(self.rows, self.tops, own, likeliest, strict=True)
        }


def asked(logits: Tensor, chunks: Sequence[Chunk]) -> Asked | None:
    """What is asked of this step's logits, [positions, vocabulary], taken before they change; None: nothing."""
    if not any(chunk.sequence.row.request.logprobs for chunk in chunks):
        return None
    requests = [chunk.sequence.row.request for chunk in chunks for _ in range(chunk.gives)]
    rows = [row for row, request in enumerate(requests) if request.logprobs]
    if not rows:
        return None
    return Asked(rows, [requests[row].top_logprobs for row in rows], logits[rows].float().log_softmax(-1))


class TokenTexts:
    """The bytes that tokens stand for, which may be parts of characters."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def describe(self, token: int, score: Score) -> TokenLogprob:
        """A chosen token as clients see it."""
        top = [token_logprob(self._bytes(id), round(logprob, DIGITS)) for id, logprob in score.top]
        return token_logprob(self._bytes(token), round(score.logprob, DIGITS), top)

    def _bytes(self, token: int) -> bytes:
        """By xgrammar, which knows how tokenizers write bytes; without it, what the token alone decodes to."""
        if IS_AVAILABLE:
            return self._vocabulary.tokens()[token]
        return str(self._vocabulary.tokenizer.decode([token])).encode()


def _clamped(logprobs: Tensor) -> Tensor:
    return logprobs.clamp(min=LEAST)
