"""Attention over keys and values as they lie: each row reads its own, and no row sees another's.

Two implementations with the same arguments: flash attention on CUDA, and a plain one in torch's operators, which is
what the other is held against and what a CPU runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class QueryRows:
    """Which queries belong to which row, and where each row's keys are. All tensors are int32.

    A row's queries are its newest tokens: the last one sees all of the row's keys, each earlier one sees one key less.

    Attributes:
        first_queries: index of each row's first query, and behind them the number of queries, [rows + 1].
        starts: the vector of each row's first key, of key head 0, in any order, [rows + 1]; the last one says nothing.
        lengths: how many keys each row has, 1 at least, [rows].
        most_queries: at least as many as any row has.
        most_keys: at least as many as any row has. With some devices it decides how the work is divided, and so how
            sums are rounded.
    """

    first_queries: Tensor
    starts: Tensor
    lengths: Tensor
    most_queries: int
    most_keys: int


class Attention(Protocol):
    """Causal attention of rows of different lengths."""

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor, rows: QueryRows) -> Tensor:
        """Attend.

        Args:
            query: [queries, heads, dim].
            keys, values: [vectors, key heads, dim]; see `StoreViews.read_keys`.

        Returns:
            [queries, heads, dim].
        """
        ...


def flash_attention(query: Tensor, keys: Tensor, values: Tensor, rows: QueryRows) -> Tensor:
    """By the flash attention inside torch: float16 or bfloat16, compute capability 8.0 or newer.

    With `seqused_k` given, `cum_seq_k` is only read as where each row starts, so rows may lie in any order. The
    arguments are those that the operator has in all versions of torch since 2.5.
    """
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query, keys, values, rows.first_queries, rows.starts, rows.most_queries, rows.most_keys, 0.0, True, False,
        scale=query.shape[-1] ** -0.5, seqused_k=rows.lengths,
    )[0]  # fmt: skip
    return out


def plain_attention(query: Tensor, keys: Tensor, values: Tensor, rows: QueryRows) -> Tensor:
    """In torch's operators, one row after the other."""
    ends, starts, lengths = (numbers.tolist() for numbers in (rows.first_queries, rows.starts, rows.lengths))
    parts = [
        _attend(query[first:end], keys[start : start + length], values[start : start + length])
        for first, end, start, length in zip(ends, ends[1:], starts, lengths, strict=False)
    ]
    return torch.cat(parts)


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One row's: query [queries, heads, dim], keys and values [keys, key heads, dim]."""
    queries, length = len(query), len(keys)
    columns = torch.arange(length, device=query.device)
    seen = columns <= columns[length - queries :, None]
    query, keys, values = (states.transpose(0, 1)[None] for states in (query, keys, values))
    out = functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True)
    return out[0].transpose(0, 1)
