"""What requests themselves ask to be done to their logits: penalties and a bias, for all rows of a step at once.

Of each row only the tokens are touched that its text has, or its bias names, not the whole vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from gpu_worker.engines.continuous.scheduler.token_counts import TokenCounts
from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest

Bias = tuple[Tensor, Tensor]
"""Token ids, each once, and what is added to their logits."""
Position = tuple[int, SequenceState, tuple[int, ...]]
"""A row of a step's logits: its index, the sequence, and the drafts that it lies behind."""


def counts_for(request: GenerateRequest, prompt: Iterable[int], vocabulary: int) -> TokenCounts | None:
    """What the request's penalties go by; None: it has none. Only the repetition penalty looks at the prompt."""
    if request.repetition_penalty != 1:
        return TokenCounts(vocabulary, prompt)
    return TokenCounts(vocabulary) if request.presence_penalty or request.frequency_penalty else None


def bias_for(request: GenerateRequest, vocabulary: int, device: torch.device) -> Bias | None:
    """The request's bias; None: it has none.

    Raises:
        InvalidRequest: the model has no such token.
    """
    if not request.logit_bias:
        return None
    ids = [int(token) for token in request.logit_bias]
    if max(ids) >= vocabulary:
        message = f"logit_bias: the model has no token {max(ids)}; its tokens are 0 to {vocabulary - 1}"
        raise InvalidRequest(message, param="logit_bias")
    values = torch.tensor(list(request.logit_bias.values()), dtype=torch.float32, device=device)
    return torch.tensor(ids, device=device), values


def apply(logits: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """Logits with what the rows' requests ask for: the repetition penalty, then frequency and presence, then the bias.

    To the positions behind a draft the drafts are text that was generated: a draft only stands where it is.

    Args:
        logits: [positions, vocabulary]; may be changed in place.

    Returns:
        The same as they were, where no row asks for anything; else float32.
    """
    if not any(chunk.sequence.counts or chunk.sequence.bias for chunk in chunks):
        return logits
    logits = logits.float()  # 16 bits would round small penalties away
    rows = [(chunk.sequence, chunk.drafts[:ahead]) for chunk in chunks for ahead in range(chunk.gives)]
    positions = [(index, *row) for index, row in enumerate(rows)]
    _penalise(logits, positions)
    _add_bias(logits, positions)
    return logits


def _penalise(logits: Tensor, positions: Sequence[Position]) -> None:
    counted = [(at, row, row.counts.behind(drafts)) for at, row, drafts in positions if row.counts]
    ids = _joined([counts.ids for _, _, counts in counted], logits.device)
    if not len(ids):
        return
    counts = _joined([counts.counts for _, _, counts in counted], logits.device)
    of = _spread([len(counts.ids) for _, _, counts in counted], logits.device)
    places = (torch.tensor([at for at, _, _ in counted], device=logits.device)[of], ids)
    parameters = torch.tensor([_parameters(row) for _, row, _ in counted], dtype=torch.float32, device=logits.device)
    logits[places] = _penalised(logits[places], counts, *parameters[of].unbind(-1))


def _penalised(scores: Tensor, counts: Tensor, repetition: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """As transformers, and as OpenAI, define them; each argument has one number a token."""
    scores = torch.where(scores < 0, scores * repetition, scores / repetition)
    return scores - frequency * counts - presence * (counts > 0)


def _parameters(sequence: SequenceState) -> tuple[float, float, float]:
    request = sequence.row.request
    return request.repetition_penalty, request.frequency_penalty, request.presence_penalty


def _add_bias(logits: Tensor, positions: Sequence[Position]) -> None:
    biased = [(at, *row.bias) for at, row, _ in positions if row.bias]
    if not biased:
        return
    indices, ids, values = zip(*biased, strict=True)
    of = _spread([len(each) for each in ids], logits.device)
    places = (torch.tensor(indices, device=logits.device)[of], torch.cat(ids))
    logits[places] += torch.cat(values)


def _joined(arrays: Iterable[array[int]], device: torch.device) -> Tensor:
    """One tensor of all their numbers."""
    numbers = bytearray().join(arrays)
    return torch.frombuffer(numbers, dtype=torch.long).to(device) if numbers else torch.empty(0)


def _spread(lengths: Sequence[int], device: torch.device) -> Tensor:
    """The index of each length, as often as it says."""
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(device)
