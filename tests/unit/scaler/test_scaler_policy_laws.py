"""The policy, whatever the limits and the load."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.load import Limits, Load
from scaler.policy import History, decide
from scaler.reasons import Reason
from scaler.scaling import OUTCOMES

LIMITS_OF_ANY_KIND = st.builds(
    lambda low, more, slots, wait, zero: Limits(low, max(1, low + more), slots, wait, zero),
    st.integers(0, 5), st.integers(0, 20), st.floats(0.5, 50), st.floats(0.1, 60), st.floats(0.1, 60),
)  # fmt: skip
LOADS = st.builds(
    lambda queued, running, oldest, there, starting, ended, start, others, coming: Load(
        queued, running, oldest, there, min(there, starting), ended, start, others, 2 * start * coming
    ),
    st.integers(0, 400), st.integers(0, 400) | st.just(0), st.floats(0, 60), st.integers(0, 30), st.integers(0, 30),
    st.integers(0, 3000), st.floats(0, 100) | st.just(0.0), st.floats(0, 9), st.floats(0, 1),
)  # fmt: skip
STEPS = st.lists(st.tuples(st.floats(0.01, 20), LOADS), min_size=1, max_size=30)


@settings(deadline=None)
@given(LIMITS_OF_ANY_KIND, STEPS)
def test_the_number_is_always_within_the_limits_and_the_action_fits_the_reason(
    limits: Limits, steps: list[tuple[float, Load]]
) -> None:
    history, now = History(), 0.0
    for seconds, seen in steps:
        now += seconds
        decision = decide(seen, history, limits, now)
        history = decision.history
        assert limits.min_workers <= decision.workers <= limits.max_workers
        change = decision.workers - seen.workers
        assert decision.reason in OUTCOMES["up" if change > 0 else "down" if change < 0 else "hold"]


@settings(deadline=None)
@given(LIMITS_OF_ANY_KIND, STEPS, st.integers(0, 400))
def test_more_jobs_never_mean_fewer_workers(limits: Limits, steps: list[tuple[float, Load]], more: int) -> None:
    """Of the same arrivals, had fewer ended."""
    history, now = History(), 0.0
    for seconds, seen in steps:
        now += seconds
        last, history = history, decide(seen, history, limits, now).history
    more = min(more, seen.ended)
    fuller = replace(seen, queued=seen.queued + more, ended=seen.ended - more)
    if fuller.ended >= last.ended:
        assert decide(fuller, last, limits, now).workers >= decide(seen, last, limits, now).workers


class House:
    """Workers that start in time, and jobs of random lengths, a second a round."""

    def __init__(self, limits: Limits, start: float, seed: int) -> None:
        self.limits, self.start, self.random = limits, start, random.Random(seed)
        self.now, self.ended = 0.0, 0
        self.history = History()
        self.workers: list[float] = []
        self.queue: list[float] = []
        self.running: list[float] = []
        self.moves: list[tuple[float, int, Reason]] = []

    def second(self, rate: float) -> None:
        self.now += 1
        self.queue += [self.now] * self._poisson(rate)
        done = sum(until <= self.now for until in self.running)
        self.running = [until for until in self.running if until > self.now]
        self.ended += done
        room = round(sum(ready <= self.now for ready in self.workers) * self.limits.slots) - len(self.running)
        for _ in range(min(max(0, room), len(self.queue))):
            self.queue.pop(0)
            self.running.append(self.now + self.random.expovariate(1 / 3))
        age = self.now - self.queue[0] if self.queue else 0.0
        left = [ready - self.now for ready in self.workers if ready > self.now]
        load = Load(
            len(self.queue), len(self.running), age, len(self.workers), len(left), self.ended, self.start,
            coming_seconds=sum(left) / max(1, len(left)),
        )  # fmt: skip
        decision = decide(load, self.history, self.limits, self.now)
        before, self.history = self.history, decision.history
        change = decision.workers - len(self.workers)
        is_surge = max(self.history.last_rise, self.history.last_fall) > max(before.last_up, before.last_down)
        if change:
            self.moves.append((self.now, change, decision.reason))
            self.is_excused = is_surge or age > self.limits.target_wait_seconds or decision.reason is Reason.RETURNING
        self.workers = (
            [*self.workers, *[self.now + self.start] * change]
            if change > 0
            else sorted(self.workers)[: decision.workers]
        )
        if len(self.moves) > 1 and change and not self.is_excused:
            (was_at, was, _), (at, now, reason) = self.moves[-2:]
            fixed = (Reason.BELOW_MIN, Reason.FROM_ZERO, Reason.TO_ZERO, Reason.AT_MAX)
            assert (was > 0) == (now > 0) or at - was_at >= self.start or reason in fixed, self.moves[-2:]

    def _poisson(self, rate: float) -> int:
        return sum(self.random.random() < rate / 50 for _ in range(50))


RATES = st.lists(st.tuples(st.floats(0, 20), st.integers(5, 60)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(RATES, st.sampled_from([1.0, 10.0, 60.0]), st.integers(0, 2), st.integers(0, 99))
def test_no_two_opposite_changes_within_a_start_but_for_a_surge_and_a_quiet_hour_ends_at_the_minimum(
    rates: list[tuple[float, int]], start: float, least: int, seed: int
) -> None:
    house = House(Limits(least, 30, 4, 1, 60), start, seed)
    for rate, seconds in rates:
        for _ in range(seconds):
            house.second(rate)
    for _ in range(300):
        house.second(0.0)
    assert len(house.workers) == least


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 99))
def test_more_arrivals_never_mean_fewer_workers_in_the_end(rate: int, more: int, seed: int) -> None:
    def workers(rate: float) -> float:
        house = House(Limits(0, 100, 2, 1, 60), 5, seed)
        counts = []
        for second in range(180):
            house.second(rate)
            counts.append(len(house.workers) if second >= 120 else 0)
        return sum(counts) / 60

    assert workers(rate + more) >= workers(rate) - 1
