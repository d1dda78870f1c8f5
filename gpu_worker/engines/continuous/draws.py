"""Draws: each row's token by its own parameters and its own noise, all rows at once.

A token is drawn by a race: every candidate has an exponential waiting time with its probability for a rate, and the
first is taken, so P(i) = p_i / sum(p) (with logarithms this is the Gumbel-max trick; Maddison, Tarlow and Minka 2014).
The times come from a hash of the row's seed, the token's index in the text, and the candidate's id. So a draw depends
on nothing else in the batch, a step that is repeated draws the same token, and logits that differ in their last digits,
as those of a prompt and of a decode step do, change it only at a true tie.

The race has two rounds, which is the same distribution and far less noise to make: between blocks of the vocabulary by
their masses, then within the block that won.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional

LOWEST_TEMPERATURE = 1e-6
BLOCK = 512
_MASK = 2**64 - 1

# Of MurmurHash3's finalizer (Appleby 2008), and the golden ratio's fraction; as torch writes 32 bits, with a sign.
_ODD = (0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32)
_GOLDEN = 0x9E3779B1 - 2**32
_WAIT_BITS = 31
_LARGEST_BELOW_ONE = 1 - 2**-24


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row's token is chosen.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 keeps all.
        key: 64 bits, of which the noise is made.
        min_p: tokens stay that are this likely in relation to the likeliest; 0 keeps all.
    """

    temperature: float
    top_k: int
    top_p: float
    key: int
    min_p: float = 0.0


def draw_key(seed: int, index: int) -> int:
    """64 bits for the token `index` of the row with this seed (SplitMix64, Steele, Lea and Flood 2014)."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draw a token for each row.

    Args:
        logits: [rows, vocabulary], float32.
        draws: one per row, their temperatures above 0.

    Returns:
        Token ids, [rows].
    """
    temperature = _column(draws, "temperature", logits.device).clamp(min=LOWEST_TEMPERATURE).float()
    probabilities = (logits / temperature).softmax(-1)
    _keep_top_k(probabilities, draws)
    return _first_kept(probabilities, draws)


def _keep_top_k(probabilities: Tensor, draws: Sequence[Draw]) -> None:
    """Set to 0, in place, what is less likely than a row's top k."""
    vocabulary = probabilities.shape[-1]
    rows = [row for row, each in enumerate(draws) if 0 < each.top_k < vocabulary]
    if not rows:
        return
    counts = torch.tensor([[draws[row].top_k] for row in rows], device=probabilities.device)
    some = probabilities[rows]
    least = some.topk(int(counts.max())).values.gather(-1, counts - 1)
    probabilities[rows] = some.where(some >= least, 0)


def _first_kept(rates: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draw one id of each row, of those that top_p and min_p keep, without sorting them.

    Whether one is kept shows by itself: the tokens likelier than it have less than top_p of the mass, and it is likely
    enough for min_p. If it is not kept, then nothing less likely is: so it is drawn again, of the likelier ones.
    Rejection that narrows, as in FlashInfer's sorting-free sampling (Ye et al. 2025).
    """
    keys = [each.key for each in draws]
    tokens, rows = _first(rates, keys), [row for row, each in enumerate(draws) if each.top_p < 1 or each.min_p]
    if not rows:
        return tokens
    mass_limit = _column(draws, "top_p", rates.device) * rates.sum(-1, keepdim=True, dtype=torch.float64)
    least = _column(draws, "min_p", rates.device) * rates.amax(-1, keepdim=True)
    for again in count(1):
        some = rates[rows]
        chosen = some.gather(-1, tokens[rows][:, None])
        likelier = some.where(some > chosen, 0)
        mass = likelier.sum(-1, keepdim=True, dtype=torch.float64)
        # As it is written, a row of NaN is content with what it has.
        rejected = ((mass >= mass_limit[rows]) | (chosen < least[rows]))[:, 0].tolist()
        rows = [row for row, is_rejected in zip(rows, rejected, strict=True) if is_rejected]
        if not rows:
            break
        rates[rows] = likelier[rejected]
        tokens[rows] = _first(rates[rows], [draw_key(keys[row], again) for row in rows])
    return tokens


def _first(rates: Tensor, keys: Sequence[int]) -> Tensor:
    """The id in each row whose waiting time ends first; rates are [rows, vocabulary]."""
    blocks = functional.pad(rates, (0, -rates.shape[-1] % BLOCK)).view(len(rates), -1, BLOCK)
    # Blocks have ids of their own, below those of tokens.
    block = _race(blocks.sum(-1), torch.arange(-1, -1 - blocks.shape[1], -1, device=rates.device)[None], keys)
    ids = block[:, None] * BLOCK + torch.arange(BLOCK, device=rates.device)
    inside = _race(blocks[torch.arange(len(rates), device=rates.device), block], ids, keys)
    return block * BLOCK + inside


def _race(rates: Tensor, ids: Tensor, keys: Sequence[int]) -> Tensor:
    """The place in each row, [rows, n], at which it ends first."""
    return (rates / waiting_times(ids, keys)).argmax(-1)


def waiting_times(ids: Tensor, keys: Sequence[int]) -> Tensor:
    """Exponential with mean 1, by key and id: never 0 and always finite.

    Args:
        ids: of candidates, [rows, n] or [1, n].
        keys: one per row, 64 bits each.

    Returns:
        [rows, n], float32.
    """
    low, high = (torch.tensor([[_signed(key >> shift)] for key in keys], device=ids.device) for shift in (0, 32))
    hashed = (ids.int() * _GOLDEN) ^ low.int()
    _mix(hashed, 16, _ODD[0])
    _mix(hashed, 13, _ODD[1])
    _mix(hashed, 16, 1)
    hashed ^= high.int()
    _mix(hashed, 16, _ODD[0])
    hashed &= 2**_WAIT_BITS - 1
    # Short times decide the race: they come from small numbers, which float32 has to the last bit.
    share = ((hashed.float() + 0.5) * 2.0**-_WAIT_BITS).clamp_(max=_LARGEST_BELOW_ONE)
    return share.neg_().log1p_().neg_()


def _mix(hashed: Tensor, shift: int, factor: int) -> None:
    """One round in place: the high bits into the low ones, as without a sign, and a product without its overflow."""
    hashed ^= (hashed >> shift) & (2 ** (32 - shift) - 1)
    hashed *= factor


def _signed(bits: int) -> int:
    """The low 32 bits as a number with a sign."""
    return ((bits & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def _column(draws: Iterable[Draw], name: str, device: torch.device) -> Tensor:
    return torch.tensor([getattr(each, name) for each in draws], dtype=torch.float64, device=device)[:, None]
