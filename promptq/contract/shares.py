"""What shares of a queue API keys have beside one another. Pure."""

from __future__ import annotations

from typing import Final, Literal

LEAST_WEIGHT: Final = 0.01
MOST_WEIGHT: Final = 100.0
_COST: Final = 1000
"""Of one job of weight 1, in the unit of tags: whole numbers, which Redis and Lua keep exactly."""


def turn_cost(weight: float) -> int | Literal[""]:
    """How far apart in virtual time the jobs of a key of this weight are; empty for 0: they have no such time."""
    return round(_COST / weight) if weight else ""
