"""Which of several ways to multiply is the fastest, by what was measured of them. No torch here, and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Seconds of each candidate, one for each number of rows.
Round = Mapping[str, Sequence[float]]

TORCH = "torch"
# Torch's products must be so many times as fast as ours: with ours come faster attention and norms.
TORCH_ADVANTAGE = 1.1


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision and its reason.

    Attributes:
        name: the candidate's.
        reason: how much longer the others take, for the log.
        is_sure: both halves of the rounds, every second one, say the same.
    """

    name: str
    reason: str
    is_sure: bool


def fastest(rounds: Sequence[Round]) -> Choice:
    """The candidate that takes the least time by the best of its rounds, all numbers of rows weighing the same."""
    costs = _costs(rounds)
    name = _cheapest(costs)
    others = sorted((cost / costs[name], other) for other, cost in costs.items() if other != name)
    reason = ", ".join(f"{other} takes {ratio:.2f} times as long" for ratio, other in others)
    halves = {_cheapest(_costs(rounds[start::2])) for start in (0, 1) if rounds[start:]}
    return Choice(name, reason, len(rounds) > 1 and len(halves) == 1)


def _costs(rounds: Sequence[Round]) -> dict[str, float]:
    """Of each candidate, how many times as long as the fastest one it takes, the mean over the numbers of rows."""
    best = {name: [min(times) for times in zip(*(one[name] for one in rounds), strict=True)] for name in rounds[0]}
    least = [min(times) for times in zip(*best.values(), strict=True)]
    return {
        name: sum(time / floor for time, floor in zip(times, least, strict=True)) / len(least)
        for name, times in best.items()
    }


def _cheapest(costs: Mapping[str, float]) -> str:
    return min(costs, key=lambda name: costs[name] * (TORCH_ADVANTAGE if name == TORCH else 1))
