"""Many things, some at a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of so many items, the last one of what is left; as `itertools.batched`, which Python 3.11 has not."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
