"""The next token of every row: greedy or drawn, each row by its own parameters, all rows at once.

A draw is made from one number per token, a hash of the row's seed and the token's index. So it depends on
nothing else in the batch, and a step that is repeated after a fault draws the same token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.engines.continuous import grammar, penalties
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState

# In place of a token, for a row whose logits are NaN or infinite.
NOT_FINITE = -1

# Sorting a whole vocabulary costs more than the model's step on a CPU; the nucleus is nearly always in here.
NUCLEUS_GUESS = 1024
LOWEST_TEMPERATURE = 1e-6
ARGMAX_BLOCK = 512
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row's token is chosen.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 keeps all.
        uniform: a number in [0, 1), the place in the distribution that is drawn.
        min_p: tokens stay that are this likely in relation to the likeliest; 0 keeps all.
    """

    temperature: float
    top_k: int
    top_p: float
    uniform: float
    min_p: float = 0.0


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) for the token `index` of the row with this seed (SplitMix64)."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def choose(logits: Tensor, chunks: Sequence[Chunk]) -> list[int]:
    """The token that follows each position that the chunks give.

    Args:
        logits: [positions, vocabulary].

    Returns:
        One token id per position; see `next_tokens`.
    """
    logits = grammar.mask(penalties.apply(_processed(logits, chunks), chunks), chunks)
    return next_tokens(logits, draws(chunks))


def _processed(logits: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """What the rows' processors make of the logits. To those behind a draft the drafts are part of the text."""
    if not any(chunk.sequence.processors for chunk in chunks):
        return logits
    logits = logits.float()  # as `generate` has them: a penalty would be rounded away in 16 bits
    positions = [(chunk, ahead) for chunk in chunks for ahead in range(chunk.gives)]
    return torch.cat([_processed_row(chunk, ahead, logits[i : i + 1]) for i, (chunk, ahead) in enumerate(positions)])


def _processed_row(chunk: Chunk, ahead: int, logits: Tensor) -> Tensor:
    sequence = chunk.sequence
    if sequence.processors is None:
        return logits
    ids = torch.tensor([[*sequence.text, *chunk.drafts[:ahead]]], device=logits.device)
    processed: Tensor = sequence.processors(ids, logits)
    return processed


def draws(chunks: Iterable[Chunk]) -> list[Draw]:
    """How each token that follows from the chunks is chosen."""
    return [_draw_of(chunk.sequence, ahead) for chunk in chunks for ahead in range(chunk.gives)]


def _draw_of(sequence: SequenceState, ahead: int) -> Draw:
    request = sequence.row.request
    place = uniform(sequence.seed, sequence.generated + ahead) if request.temperature else 0.0
    return Draw(request.temperature, request.top_k, request.top_p, place, request.min_p)


def next_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose a token for each row.

    Args:
        logits: [rows, vocabulary].
        draws: one per row.

    Returns:
        One token id per row, NOT_FINITE where the logits have no finite maximum.
    """
    top, tokens = _maximum(logits)
    drawn = [index for index, draw in enumerate(draws) if draw.temperature > 0]
    if drawn:
        tokens[drawn] = _draw(logits[drawn].float(), [draws[index] for index in drawn])
    return torch.where(top.isfinite(), tokens, NOT_FINITE).tolist()


def _maximum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's maximum and its first index, both [rows].

    `max` with an index is not vectorised on a CPU, and takes 2 % of a step. Without one it is: so the index is looked
    for in one block only.
    """
    vocabulary = logits.shape[-1]
    if vocabulary % ARGMAX_BLOCK:
        return logits.max(dim=-1)
    blocks = logits.view(len(logits), vocabulary // ARGMAX_BLOCK, ARGMAX_BLOCK)
    top, block = blocks.amax(-1).max(-1)
    inside = blocks[torch.arange(len(logits), device=logits.device), block].argmax(-1)
    return top, block * ARGMAX_BLOCK + inside


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    def column(name: str) -> Tensor:
        return torch.tensor([getattr(draw, name) for draw in draws], dtype=torch.float64, device=logits.device)[:, None]

    temperature = column("temperature").clamp(min=LOWEST_TEMPERATURE).float()
    # The maximum is taken off first: a small temperature must not overflow.
    probabilities = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    limited = [index for index, draw in enumerate(draws) if draw.top_k or draw.top_p < 1 or draw.min_p]
    tokens = _invert(probabilities.double().cumsum(-1), column("uniform"))
    if limited:
        columns = (column(name)[limited] for name in ("top_k", "top_p", "min_p", "uniform"))
        tokens[limited] = _draw_limited(probabilities[limited], *columns)
    return tokens


def _draw_limited(probabilities: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, place: Tensor) -> Tensor:
    """Draw from the likeliest tokens: of the top k's mass the top p, and of these the ones likely enough for min_p."""
    vocabulary = probabilities.shape[-1]
    top_k = torch.where(top_k > 0, top_k, vocabulary).clamp(max=vocabulary)
    width = min(NUCLEUS_GUESS, vocabulary)
    ids, mass, kept = _nucleus(probabilities, top_k, top_p, min_p, width)
    beyond = kept[:, -1:] | ((top_k > width) & (top_k < vocabulary))
    if width < vocabulary and beyond.any():
        ids, mass, kept = _nucleus(probabilities, top_k, top_p, min_p, vocabulary)
    rank = _invert(torch.where(kept, mass, mass.where(kept, 0).amax(-1, keepdim=True)), place)
    return ids.gather(-1, rank[:, None])[:, 0]


def _nucleus(
    probabilities: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `width` likeliest ids, their cumulative mass, and which of them are kept; each [rows, width]."""
    ranked, ids = probabilities.topk(width)
    mass = ranked.double().cumsum(-1)
    in_top_k = torch.arange(width, device=ids.device) < top_k
    whole = torch.where(top_k < probabilities.shape[-1], mass.where(in_top_k, 0).amax(-1, keepdim=True), 1.0)
    return ids, mass, in_top_k & (mass - ranked < top_p * whole) & (ranked >= min_p * ranked[:, :1])


def _invert(cumulative: Tensor, place: Tensor) -> Tensor:
    """Index at which each row's cumulative mass [rows, n] passes the share `place` [rows, 1] of its total."""
    index = torch.searchsorted(cumulative, place * cumulative[:, -1:], right=True)[:, 0]
    return index.clamp(max=cumulative.shape[-1] - 1)
