"""What an engine says of the memory of its rows' keys and values. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class KvTokens:
    """How full the memory of the rows' keys and values is, in tokens.

    Attributes:
        capacity: of all rows together; 0: the engine does not say.
        reserved: of these, what rows hold.
        used: of these, what has been computed.
    """

    capacity: int = 0
    reserved: int = 0
    used: int = 0


UNKNOWN = KvTokens()


@runtime_checkable
class CrowdedEngine(Protocol):
    """An engine whose rows need different amounts of memory, so that one may wait for it though a slot was free."""

    def crowded_out(self) -> Sequence[str]:
        """The rows that wait until others leave."""
        ...


def crowded_out_of(engine: object) -> Sequence[str]:
    """The rows of an engine that wait for memory; none where all rows need the same."""
    return engine.crowded_out() if isinstance(engine, CrowdedEngine) else ()
