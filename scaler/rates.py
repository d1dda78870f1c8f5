"""Rates from running totals."""

from __future__ import annotations

import math
from collections.abc import Mapping

SMOOTHING_SECONDS = 10.0
ENDED = ("succeeded", "failed", "cancelled", "expired")
HITS = "hits"


class Rate:
    """How fast a total grows, per second, smoothed over about ten seconds."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._last: tuple[float, int] | None = None
        self._is_known = False

    def update(self, total: int, now: float, counts: bool = True) -> None:
        """Take in the total at `now`. Where `counts` is false, the time since the last one says nothing."""
        last, self._last = self._last, (now, total)
        if not counts or last is None or now <= last[0] or total < last[1]:
            return
        seconds = now - last[0]
        weight = 1 - math.exp(-seconds / SMOOTHING_SECONDS) if self._is_known else 1.0
        self.per_second += weight * ((total - last[1]) / seconds - self.per_second)
        self._is_known = True


def ended_jobs(totals: Mapping[str, int]) -> int:
    """Jobs that have ended, without those that the cache answered: they needed no worker."""
    return sum(totals.get(name, 0) for name in ENDED) - totals.get(HITS, 0)


class Rates:
    """Jobs that arrive and jobs that end, per second. What the cache answers never waits, and counts as neither."""

    def __init__(self) -> None:
        self.arrivals = Rate()
        self.drain = Rate()

    def update(self, totals: Mapping[str, int], has_work: bool, now: float) -> None:
        """Take in the totals that Redis keeps. An idle service says nothing of how fast it drains."""
        self.arrivals.update(totals.get("submitted", 0) - totals.get(HITS, 0), now)
        self.drain.update(ended_jobs(totals), now, has_work)
