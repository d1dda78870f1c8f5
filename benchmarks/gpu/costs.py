"""From times of steps to the numbers that a scheduler weighs prompts and drafts by. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

FREE_SHARE = 1.15
"""A step with more tokens takes "about the time of one", if it takes no more than this many times as long."""
GOOD_SHARE = 0.9
"""Prompts are large enough when their tokens come at this share of the best rate."""

Seconds = Mapping[int, float]
"""How long a step of so many tokens takes."""


def free_tokens(running: Seconds) -> int:
    """The most tokens that a step computes in about the time of the fewest, all steps of fewer tokens likewise."""
    free = least = min(running)
    for tokens in sorted(running):
        if running[tokens] > FREE_SHARE * running[least]:
            break
        free = tokens
    return free


def double_tokens(running: Seconds, free: int) -> int | None:
    """How many more than the free ones make a step take twice as long as with the fewest tokens, by the straight line
    between the two steps measured next to it; None: none that was measured takes as long.
    """
    at = _reaches(running, 2 * running[min(running)])
    return None if at is None else max(1, round(at - free))


def prefill_tokens(prompts: Seconds) -> int:
    """The fewest prompt tokens of a step that are computed at nearly the best rate."""
    best = max(tokens / seconds for tokens, seconds in prompts.items())
    return min(tokens for tokens, seconds in prompts.items() if tokens / seconds >= GOOD_SHARE * best)


def beside_tokens(beside: Seconds, alone: float) -> int | None:
    """How many prompt tokens double a step of running rows that takes `alone` seconds without; None: more than were
    measured.
    """
    at = _reaches({0: alone} | dict(beside), 2 * alone)
    return None if at is None else round(at)


def _reaches(times: Seconds, limit: float) -> float | None:
    """Where the line through the measured times first comes to this limit; None: nowhere."""
    for fewer, more in pairwise(sorted(times)):
        if times[more] >= limit:
            rise = times[more] - times[fewer]
            share = (limit - times[fewer]) / rise if rise > 0 else 1.0
            return fewer + max(0.0, share) * (more - fewer)
    return None
