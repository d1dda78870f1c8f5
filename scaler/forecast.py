"""How many jobs will come, how long each takes, and when a surge returns. Pure; times are steady seconds.

Sources: control charts for the change (Page, Biometrika 1954); least squares for the line; Little's law for the time in
service (Little, Operations Research 1961); how much a slope is worth, by what earlier ones have said and what has come
(Mincer and Zarnowitz, The Evaluation of Economic Forecasts, 1969).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SPAN = 60
"""Looks that the line of arrivals is laid through, at most."""
RECENT = (1, 2, 4, 8)
"""Numbers of looks whose arrivals are held against the line."""
SURPRISE = 4.0
"""Standard deviations that make a change."""
TRUST_STARTS = 4
"""What slopes were worth is remembered over the length of so many starts."""
SERVICE_SECONDS, SERVICE_JOBS = 120.0, 200.0
"""How far back the time in service is measured: the longer of the two."""
LATELY_SECONDS = 5.0
"""Over which the jobs that have ended lately fade."""
RISE_SERVICES, RISE_ENDED = 15, 30
"""Times in service after a rise in which lengths still gather, and jobs that must have ended lately to see it."""
FEWEST_ENDED = 5.0
"""Jobs that must have ended before their time in service says anything."""
SURGE = 1.5
"""The factor that makes a surge, and within which two are alike."""
LEAST_PERIOD_SECONDS = 10.0
RETURN_SLACK_SECONDS = 4.0
"""How long a surge's workers are kept when it is due: so long its arrivals take to say how many they are."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How far slopes have come true: the regression of what came on what they had said. It stays as it was while
    arrivals are level, and turns as soon as slopes say something again.

    Attributes:
        lines: of the latest lines, the oldest first, their level and by how much they said that it would change: those
            of which nothing has come yet.
        agreed, square: sums over the earlier ones: of what they said times what came, and of what they said squared.
    """

    lines: tuple[tuple[float, float], ...] = ()
    agreed: float = 0.0
    square: float = 0.0

    @property
    def share(self) -> float:
        """Of a slope, that counts: 0 until one has come true."""
        return min(1.0, max(0.0, self.agreed / self.square)) if self.square else 0.0

    def add(self, level: float, change: float, ahead: int) -> Trust:
        """With one line more; that of so many looks ago is held against its level."""
        lines = (*self.lines[-ahead:], (level, change))
        if len(lines) <= ahead:
            return replace(self, lines=lines)
        was, said = lines[0]
        came, kept = level - was, 1 - 1 / (TRUST_STARTS * ahead)
        return Trust(lines, self.agreed * kept + said * came, self.square * kept + said * said)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A line through the arrivals of each look since they last changed.

    Attributes:
        counts: jobs of each look, the latest last; `missed`: of the latest ones, with what the line had said.
        spread: variance over mean, at least 1, as measured (1: Poisson).
        age: looks since the last change.
        change: 1 or -1 where the latest look made the line begin anew, above or below.
        trust: how far its slope counts for what is ahead.
    """

    counts: tuple[float, ...] = ()
    missed: tuple[tuple[float, float], ...] = ()
    spread: float = 1.0
    mean: float = 0.0
    slope: float = 0.0
    age: int = 0
    change: int = 0
    trust: Trust = Trust()

    def at(self, ahead: float) -> float:
        """Arrivals of a look, so many looks after the latest one: by as much of the slope as is trusted, and no farther
        ahead than the line goes back."""
        return max(0.0, self.mean + self.slope * ((len(self.counts) - 1) / 2 + self.trust.share * min(ahead, self.age)))

    def add(self, count: float, ahead: int) -> Arrivals:
        """With one look more; `ahead` is for how many looks slopes are to be trusted."""
        seen, ahead = self._with(count), max(1, ahead)
        change = seen.slope * min(ahead, seen.age)
        return replace(seen, trust=seen.trust.add(seen.at(0), change, ahead))

    def _with(self, count: float) -> Arrivals:
        """Looks that miss the line by more than chance does are the beginning of a new one."""
        if not self.counts:
            return _fit((count,), Arrivals(), 0)
        expected = self.at(1)
        missed = (*self.missed[1 - RECENT[-1] :], (count, expected))
        error = (count - expected) ** 2 / max(expected, 1.0)
        # A change is no spread: what one look adds to it is bounded.
        spread = max(1.0, self.spread + (min(error, SURPRISE**2 * self.spread) - self.spread) / SPAN)
        for looks in (looks for looks in RECENT if looks <= len(missed)):
            came, awaited = (sum(column) for column in zip(*missed[-looks:], strict=True))
            if abs(came - awaited) > SURPRISE * math.sqrt(max(awaited, 1.0) * self.spread):
                begun = Arrivals(spread=spread, age=looks - 1, trust=self.trust)
                return _fit(tuple(c for c, _ in missed[-looks:]), begun, 1 if came > awaited else -1)
        return _fit((*self.counts[1 - SPAN :], count), replace(self, missed=missed, spread=spread), 0)


def _fit(counts: tuple[float, ...], line: Arrivals, change: int) -> Arrivals:
    """Least squares; the slope is shrunk by its own error, and none if it is not half as large again."""
    n, mean, slope = len(counts), sum(counts) / len(counts), 0.0
    if n >= 4:
        square = n * (n * n - 1) / 12
        steep = sum((i - (n - 1) / 2) * count for i, count in enumerate(counts)) / square
        error = math.sqrt(max(mean, 1.0) * line.spread / square)
        slope = steep - error * error / steep if abs(steep) > 1.5 * error else 0.0
    return Arrivals(counts, line.missed, line.spread, mean, slope, line.age + 1, change, line.trust)


@dataclass(frozen=True, slots=True)
class Service:
    """Busy job-seconds over ended jobs: the mean time in service.

    Attributes:
        lately: the same two, of the last few seconds.
    """

    busy: float = 0.0
    ended: float = 0.0
    lately: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, seconds: float) -> Service:
        """As an earlier measurement says, until as many jobs again have said otherwise; 0: there is none."""
        return cls(2 * FEWEST_ENDED * seconds, 2 * FEWEST_ENDED) if seconds else cls()

    @property
    def seconds(self) -> float | None:
        """None until enough jobs have ended to say and one has been seen to run: they may have been cancelled."""
        return self.busy / self.ended if self.ended > FEWEST_ENDED and self.busy else None

    def add(self, seconds: float, running: float, ended: int) -> Service:
        """With some seconds more, in which so many jobs ran on average and so many ended."""
        kept = max(0.0, 1 - min(seconds / SERVICE_SECONDS, ended / SERVICE_JOBS))
        fades = math.exp(-seconds / LATELY_SECONDS)
        busy, gone = self.lately
        lately = busy * fades + seconds * running, gone * fades + ended
        return Service(self.busy * kept + seconds * running, self.ended * kept + ended, lately)

    def after_a_rise(self, age_seconds: float) -> float | None:
        """Where jobs are of many lengths, the short ones end first, and the load of more arrivals comes only as the
        long ones gather: for a while it is between what has been in service lately and the mean."""
        usual, (busy, ended) = self.seconds, self.lately
        if usual is None or ended < RISE_ENDED or age_seconds > RISE_SERVICES * usual:
            return usual
        return min(usual, (usual + busy / ended * (1 + 2 / math.sqrt(ended))) / 2)


@dataclass(frozen=True, slots=True)
class Surges:
    """The last three surges.

    Attributes:
        seen: of each, when it came, the workers that it needed, and those that it needed before one that was started at
            its beginning could be there.
        calm: workers that the arrivals needed before the latest change.
        kept: workers for a surge that is due, until `until`.
    """

    seen: tuple[tuple[float, int, int], ...] = ()
    calm: float = 0.0
    kept: int = 0
    until: float = -math.inf

    def add(self, arrivals: Arrivals, level: float, need: int, early: int, now: float) -> Surges:
        """With one look more, whose arrivals keep `level` workers busy and need so many.

        Args:
            early: workers that the jobs there need, if one that was started at the surge's beginning is not there yet.
        """
        if not arrivals.change:
            calm = level if arrivals.age >= RECENT[-1] else self.calm  # a line that has just begun is not calm yet
            return replace(self, seen=self._grown(need, min(need, early)), calm=calm)
        is_new = arrivals.change > 0 and level >= SURGE * self.calm and level - self.calm >= 1
        if is_new and (not self.seen or now - self.seen[-1][0] > LEAST_PERIOD_SECONDS):
            return replace(self, seen=(*self.seen[-2:], (now, 0, 0)))
        return self

    def due(self, start_seconds: float, now: float) -> Surges:
        """With the workers of a surge that has come twice, alike in size and after as long, when it would come again:
        ready then, and for a margin that grows with its irregularity."""
        if len(self.seen) < 2:
            return self
        (before, size, _), (last, workers, early) = self.seen[-2:]
        period = last - before
        off = abs(period - (before - self.seen[-3][0])) if len(self.seen) > 2 else 0.0
        alike = workers <= SURGE * size and size <= SURGE * workers and off <= 1 + period / 20
        due, margin = last + period, 1 + off
        if alike and due - start_seconds - margin <= now <= due + margin:
            return replace(self, kept=early, until=due + margin + RETURN_SLACK_SECONDS)
        return self

    def workers(self, now: float) -> int:
        """That are kept for a surge now."""
        return self.kept if now <= self.until else 0

    @property
    def latest(self) -> float:
        """When the latest surge came."""
        return self.seen[-1][0] if self.seen else -math.inf

    def _grown(self, need: int, early: int) -> tuple[tuple[float, int, int], ...]:
        """The latest surge needed the most that was seen of it, until its end."""
        if not self.seen:
            return ()
        at, size, before = self.seen[-1]
        return (*self.seen[:-1], (at, need if SURGE * need >= size else size, max(before, early)))
