"""The policy, one rule a test, on a clock made by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from promptq.contract.settings import ScalerSettings
from scaler.policy import History, Limits, Load, Reason, decide

LIMITS = Limits(
    min_workers=1, max_workers=4, target_jobs_per_worker=10, target_wait_seconds=10, up_delay_seconds=2,
    down_window_seconds=30, zero_delay_seconds=300,
)  # fmt: skip
FROM_ZERO = replace(LIMITS, min_workers=0)


def load(jobs: int = 0, workers: int = 1, oldest: float = 0.0, starting: int = 0, running: int = 0) -> Load:
    return Load(jobs - running, running, oldest, workers, starting)


class Clock:
    """Decides once a second; what was decided is there by the next second unless the load says otherwise."""

    def __init__(self, limits: Limits = LIMITS, workers: int = 1, now: float = 1000.0) -> None:
        self.limits = limits
        self.workers = workers
        self.now = now
        self.history = History()

    def tick(self, jobs: int, **fields: float) -> tuple[int, Reason]:
        decision = decide(load(jobs, self.workers, **fields), self.history, self.limits, self.now)
        self.history, self.workers, self.now = decision.history, decision.workers, self.now + 1
        return decision.workers, decision.reason

    def ticks(self, jobs: Iterable[int], **fields: float) -> list[tuple[int, Reason]]:
        return [self.tick(count, **fields) for count in jobs]


def warm(jobs: int, workers: int, seconds: int = 40, limits: Limits = LIMITS) -> Clock:
    """A clock that has watched the same load for so long."""
    clock = Clock(limits, workers)
    for _ in range(seconds):
        clock.workers = workers
        clock.tick(jobs)
    clock.workers = workers
    return clock


@pytest.mark.parametrize(
    ("jobs", "workers", "wanted"),
    [
        (0, 1, 1), (1, 1, 1), (10, 1, 1), (11, 1, 2), (20, 2, 2), (21, 2, 3), (31, 3, 4),
        (40, 4, 4), (1000, 1, 4), (1000, 4, 4),
    ],
)  # fmt: skip
def test_wanted_is_jobs_by_target(jobs: int, workers: int, wanted: int) -> None:
    clock = Clock(replace(LIMITS, up_delay_seconds=0), workers)
    assert clock.tick(jobs)[0] == wanted


def test_running_jobs_count_as_queued_ones_do() -> None:
    clock = Clock(replace(LIMITS, up_delay_seconds=0))
    assert clock.tick(30, running=25) == (3, Reason.DEMAND)


@pytest.mark.parametrize(
    ("jobs", "workers", "reason"),
    [(5, 1, Reason.STEADY), (40, 4, Reason.STEADY), (31, 4, Reason.STEADY), (100, 4, Reason.AT_MAX)],
)
def test_a_number_that_stays_says_why(jobs: int, workers: int, reason: Reason) -> None:
    assert warm(jobs, workers).tick(jobs) == (workers, reason)


@pytest.mark.parametrize(("jobs", "expected"), [(180, (20, Reason.TOLERANCE)), (179, (18, Reason.WINDOW_DOWN))])
def test_a_worker_goes_only_when_a_tenth_of_them_is_not_needed(jobs: int, expected: tuple[int, Reason]) -> None:
    limits = replace(LIMITS, max_workers=100)
    clock = warm(200, 20, limits=limits)
    assert expected in clock.ticks([jobs] * 40)


def test_workers_kept_by_the_lower_bound_are_not_tolerated_but_steady() -> None:
    assert warm(5, 2, limits=replace(LIMITS, min_workers=2)).tick(5) == (2, Reason.STEADY)


def test_a_need_must_last_before_workers_are_added() -> None:
    clock = warm(15, 2)
    held = (2, Reason.UP_DELAY)
    assert clock.ticks([24, 24, 24]) == [held, held, (3, Reason.DEMAND)]


def test_a_need_that_comes_and_goes_adds_nobody() -> None:
    clock = warm(15, 2)
    assert {workers for workers, _ in clock.ticks([24, 15, 24, 24, 15, 24] * 5)} == {2}


def test_what_was_needed_all_along_is_replaced_at_once() -> None:
    clock = warm(30, 3)
    clock.workers = 2
    assert clock.tick(30) == (3, Reason.DEMAND)


def test_a_burst_skips_the_delay() -> None:
    clock = warm(12, 2)
    assert clock.tick(24) == (3, Reason.BURST)


@pytest.mark.parametrize(
    ("jobs", "workers"), [([22, 25, 28, 31, 34, 37, 40, 43], 2), ([22, 25, 28, 31, 34, 37, 44], 4)]
)
def test_only_a_demand_that_doubles_within_six_seconds_is_a_burst(jobs: list[int], workers: int) -> None:
    clock = warm(20, 2, limits=replace(LIMITS, up_delay_seconds=1000))
    assert clock.ticks(jobs)[-1] == (workers, Reason.UP_DELAY if workers == 2 else Reason.BURST)


def test_a_demand_seen_long_ago_makes_no_burst() -> None:
    clock = warm(10, 1, limits=replace(LIMITS, up_delay_seconds=1000))
    clock.now += 100
    assert clock.tick(40) == (1, Reason.UP_DELAY)


def test_one_job_after_none_is_no_burst() -> None:
    assert warm(0, 1).tick(1) == (1, Reason.STEADY)


def test_the_first_decision_after_a_start_is_no_burst() -> None:
    assert Clock().tick(40) == (1, Reason.UP_DELAY)


def test_from_zero_the_first_worker_comes_at_once() -> None:
    assert Clock(FROM_ZERO, 0).tick(1) == (1, Reason.FROM_ZERO)
    assert Clock(FROM_ZERO, 0).tick(0) == (0, Reason.STEADY)


def test_from_zero_a_burst_brings_all_that_are_needed() -> None:
    assert warm(0, 0, limits=FROM_ZERO).tick(35) == (4, Reason.FROM_ZERO)


def test_below_the_minimum_is_refilled_at_once() -> None:
    limits = replace(LIMITS, min_workers=2)
    assert Clock(limits, 0).tick(0) == (2, Reason.BELOW_MIN)
    clock = warm(0, 2, limits=limits)
    clock.workers = 1
    assert clock.tick(0) == (2, Reason.BELOW_MIN)


def test_below_the_minimum_a_burst_brings_all_that_are_needed() -> None:
    limits = replace(LIMITS, min_workers=2)
    clock = warm(0, 2, limits=limits)
    clock.workers = 1
    assert clock.tick(35) == (4, Reason.BELOW_MIN)


def test_a_long_wait_adds_one_worker() -> None:
    clock = warm(12, 2)
    assert clock.tick(12, oldest=10.0)[0] == 2
    assert clock.tick(12, oldest=10.1) == (3, Reason.WAIT)


def test_a_long_wait_adds_no_more_while_one_starts() -> None:
    clock = warm(12, 2)
    clock.tick(12, oldest=11)
    reasons = clock.ticks([12] * 30, oldest=12, starting=1)
    assert {workers for workers, _ in reasons} == {3}


def test_a_long_wait_adds_the_next_only_after_the_last_had_its_time() -> None:
    clock = warm(12, 1)
    counts = [workers for workers, _ in clock.ticks([12] * 21, oldest=20)]
    assert counts == [2] * 10 + [3] * 10 + [4]


def test_a_long_wait_after_a_start_is_watched_first() -> None:
    clock = Clock(workers=2)
    assert [workers for workers, _ in clock.ticks([12] * 11, oldest=50)] == [2] * 10 + [3]


def test_a_long_wait_does_not_slow_a_lasting_demand() -> None:
    clock = warm(40, 4)
    clock.workers = 2
    assert clock.tick(40, oldest=20) == (4, Reason.DEMAND)


def test_a_long_wait_is_no_burst() -> None:
    assert warm(1, 1).tick(2, oldest=20) == (2, Reason.WAIT)


def test_a_long_wait_retires_nobody() -> None:
    clock = warm(12, 3)
    assert {workers for workers, _ in clock.ticks([2] * 9, oldest=20)} == {4}


def test_running_jobs_alone_are_no_wait() -> None:
    assert warm(12, 2).tick(12, running=12, oldest=100)[0] == 2


def test_starting_workers_are_capacity() -> None:
    assert warm(30, 3).tick(30, starting=2) == (3, Reason.STEADY)


def test_down_only_to_the_highest_need_of_the_window() -> None:
    clock = warm(40, 4)
    counts = clock.ticks([15, 25, *[5] * 40])
    assert counts[:30] == [(4, Reason.DOWN_DELAY)] * 30
    assert (clock.workers, counts[30:33]) == (
        1, [(3, Reason.WINDOW_DOWN), (3, Reason.DOWN_DELAY), (1, Reason.WINDOW_DOWN)],
    )  # fmt: skip


def test_a_peak_within_the_window_starts_it_anew() -> None:
    clock = warm(40, 4)
    assert {workers for workers, _ in clock.ticks([*[5] * 25, 40, *[5] * 30])} == {4}
    assert clock.tick(5) == (1, Reason.WINDOW_DOWN)


def test_after_a_start_nobody_goes_before_a_whole_window_was_seen() -> None:
    clock = Clock(workers=4)
    assert [workers for workers, _ in clock.ticks([5] * 32)] == [4] * 30 + [1, 1]


def test_the_last_worker_goes_after_a_delay_of_its_own() -> None:
    clock = warm(1, 1, limits=FROM_ZERO)
    counts = clock.ticks([0] * 302)
    assert counts[:300] == [(1, Reason.ZERO_DELAY)] * 300
    assert counts[300:] == [(0, Reason.TO_ZERO), (0, Reason.STEADY)]


def test_a_job_starts_the_delay_to_zero_anew() -> None:
    clock = warm(1, 1, limits=FROM_ZERO)
    assert {workers for workers, _ in clock.ticks([*[0] * 299, 1, *[0] * 300])} == {1}
    assert clock.tick(0) == (0, Reason.TO_ZERO)


def test_several_idle_workers_first_go_down_to_one() -> None:
    clock = warm(40, 4, limits=FROM_ZERO)
    counts = clock.ticks([0] * 302)
    assert [reason for _, reason in counts if reason not in (Reason.DOWN_DELAY, Reason.ZERO_DELAY)] == [
        Reason.WINDOW_DOWN, Reason.TO_ZERO, Reason.STEADY,
    ]  # fmt: skip


def test_more_workers_than_allowed_are_retired_at_once() -> None:
    assert Clock(workers=6).tick(100) == (4, Reason.AT_MAX)


def test_limits_come_from_the_settings() -> None:
    settings = ScalerSettings(_env_file=None, up_delay_seconds=7)
    limits = Limits.of(settings, 2, 5)
    assert (limits.min_workers, limits.max_workers, limits.up_delay_seconds) == (2, 5, 7)
    assert limits.target_jobs_per_worker == 16


def test_a_worker_is_for_as_many_jobs_as_it_has_slots_unless_the_settings_say_otherwise() -> None:
    settings = ScalerSettings(_env_file=None)
    assert Limits.of(settings, 2, 5, slots=256).target_jobs_per_worker == 256
    given = ScalerSettings(_env_file=None, target_jobs_per_worker=4)
    assert Limits.of(given, 2, 5, slots=256).target_jobs_per_worker == 4


def test_a_decision_stays_cheap_for_ten_thousand_workers() -> None:
    """The history holds windows of samples, not workers."""
    limits = Limits(0, 10_000, 16, up_delay_seconds=2, down_window_seconds=30)
    clock = Clock(limits, 0)
    started = time.perf_counter()
    for second in range(5000):
        clock.tick(80_000 + (second * 7919) % 80_000)
    assert (time.perf_counter() - started) / 5000 < 0.001
    assert len(clock.history.lows) + len(clock.history.highs) + len(clock.history.demands) < 60
