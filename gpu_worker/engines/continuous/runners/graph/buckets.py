"""The numbers of tokens that decode steps are padded to: each is one shape, and on CUDA one graph. No torch here."""

from __future__ import annotations

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def bucket_for(tokens: int) -> int | None:
    """The smallest bucket that so many tokens fit into; None: they are more than the largest has."""
    return next((bucket for bucket in BUCKETS if tokens <= bucket), None)
