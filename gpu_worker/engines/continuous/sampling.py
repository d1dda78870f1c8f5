"""The next token of every row: greedy or drawn, each row by its own parameters, all rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gpu_worker.engines.continuous import grammar, logprobs, penalties
from gpu_worker.engines.continuous.draws import Draw, draw, draw_key
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState

# In place of a token, for a row whose logits are NaN or infinite.
NOT_FINITE = -1

ARGMAX_BLOCK = 512


def choose(logits: Tensor, chunks: Sequence[Chunk]) -> Chosen:
    """The token that follows each position that the chunks give.

    Args:
        logits: [positions, vocabulary].

    Returns:
        One token id per position, see `next_tokens`, and what its row asks to know of it.
    """
    asked = logprobs.asked(logits, chunks)
    logits = grammar.mask(penalties.apply(_processed(logits, chunks), chunks), chunks)
    tokens = next_tokens(logits, draws(chunks))
    return Chosen(tokens, asked.scores(tokens) if asked else {})


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
    key = draw_key(sequence.seed, sequence.generated + ahead) if request.temperature else 0
    return Draw(request.temperature, request.top_k, request.top_p, key, request.min_p)


def next_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Choose a token for each row.

    Args:
        logits: [rows, vocabulary].
        draws: one per row.

    Returns:
        One token id per row, NOT_FINITE where the logits have no finite maximum.
    """
    top, tokens = _maximum(logits)
    drawn = [row for row, each in enumerate(draws) if each.temperature > 0]
    if drawn:
        tokens[drawn] = draw(logits[drawn].float(), [draws[row] for row in drawn])
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
