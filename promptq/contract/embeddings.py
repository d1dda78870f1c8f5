"""How an embedding is kept: base64 of little-endian float32, which is also OpenAI's compact form. Pure."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence


def packed(embedding: Sequence[float]) -> str:
    """The numbers as text, a third as long as JSON has them.

    Raises:
        ValueError: one of them is no finite float32.
    """
    try:
        raw = struct.pack(f"<{len(embedding)}f", *embedding)
    except (OverflowError, struct.error) as error:
        raise ValueError(f"an embedding consists of finite float32: {error}") from None
    if not all(map(math.isfinite, embedding)):
        raise ValueError("an embedding consists of finite float32")
    return base64.b64encode(raw).decode()


def unpacked(text: str) -> list[float]:
    """The inverse of `packed`.

    Raises:
        ValueError: the text is none of its.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) % 4:
        raise ValueError("an embedding has four bytes for each number")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
