"""The policy, one rule a test, on a clock made by hand."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from promptq.contract.settings import ScalerSettings
from scaler.forecast import Arrivals, Service
from scaler.load import Limits, Load
from scaler.policy import HOLD, History, decide
from scaler.reasons import Reason
from tests.unit.scaler.policy_clock import LIMITS, SERVICE, START, Clock, busy

FROM_ZERO = replace(LIMITS, min_workers=0)


class TestBeforeAnythingIsKnown:
    @pytest.mark.parametrize(("jobs", "wanted"), [(0, 1), (10, 1), (11, 2), (1000, 40)])
    def test_there_is_a_slot_for_each_job(self, jobs: int, wanted: int) -> None:
        clock = Clock(history=History())
        assert clock.tick(0, queued=jobs)[0] == wanted

    def test_the_reason_is_the_demand(self) -> None:
        assert Clock(history=History()).tick(0, queued=30) == (3, Reason.DEMAND)


class TestForecast:
    def test_workers_have_slots_for_the_offered_load_and_a_margin(self) -> None:
        clock = busy(20, 10)
        workers, _ = clock.tick(100, 20)
        assert clock.outlook.arrivals == pytest.approx(20)
        assert clock.outlook.service_seconds == pytest.approx(SERVICE)
        assert 10 < clock.outlook.need <= workers <= 13

    def test_arrivals_that_rise_beyond_chance_bring_workers_before_a_queue_stands(self) -> None:
        clock = busy(20, 12)
        first, second, third = (clock.tick(100 + 40 * n, 60) for n in (1, 2, 3))
        assert first[0] > 12
        assert third[1] is Reason.FORECAST or second[1] is Reason.FORECAST
        assert third[0] >= 30

    def test_one_full_look_may_be_a_batch_which_is_no_rate(self) -> None:
        clock = busy(1, 2)
        assert clock.tick(5, 70, queued=70)[0] <= 2
        assert clock.tick(20, 0, queued=50)[0] <= 2, "the workers there will have done them before another one comes"

    def test_a_rise_is_followed_as_far_ahead_as_a_start_takes(self) -> None:
        clock = busy(20, 20)
        for second in range(60):
            clock.workers = 40
            clock.tick(round((20 + second) * SERVICE), 20 + second)
        assert clock.outlook.expected == pytest.approx(clock.outlook.arrivals + START + 1, rel=0.1)

    def test_a_slope_counts_only_as_far_as_slopes_have_come_true(self) -> None:
        """Up for a while and back, again and again: each slope says more than comes of it."""
        clock = busy(200, 200, limits=replace(LIMITS, max_workers=900))
        for second in range(400):
            clock.workers = 200
            rate = 200 + abs(second % 40 - 20)
            clock.tick(round(rate * SERVICE), rate)
        assert clock.history.arrivals.trust.share < 0.5
        assert clock.outlook.expected < 225

    def test_nobody_trusts_the_first_slope(self) -> None:
        clock = busy(20, 20)
        for second in range(round(START)):
            clock.workers = 40
            clock.tick(round((20 + second) * SERVICE), 20 + second)
        assert clock.outlook.expected == clock.outlook.arrivals

    def test_there_is_no_margin_where_a_worker_comes_in_time_for_a_job_without_a_slot(self) -> None:
        clock = busy(20, 12)
        clock.tick(100, 20, start_seconds=3.0)
        assert clock.outlook.need > 10
        clock.tick(100, 20, start_seconds=1.0)
        assert (clock.outlook.need, clock.outlook.cause) == (10, Reason.FORECAST)

    def test_short_jobs_that_the_workers_there_will_have_done_bring_few_however_fast_a_start_is(self) -> None:
        quick = History(at=0.0, look=(0.0, 0), service=Service(0.05 * 1e6, 1e6))
        assert decide(Load(2000, 0, 0.0, 1, start_seconds=2.0), quick, LIMITS, 0.5).workers < 15

    def test_jobs_that_ended_without_having_been_seen_to_run_say_nothing_of_the_time_in_service(self) -> None:
        clock = Clock(history=History())
        clock.tick(0, queued=60)
        clock.tick(0)
        workers, _ = clock.tick(0, 1, queued=1, start_seconds=0.0)
        assert clock.outlook.service_seconds is None
        assert workers == 6, "those that the 60 jobs needed are kept for a while"

    def test_a_worker_is_not_sent_away_for_what_chance_does(self) -> None:
        limits = replace(LIMITS, max_workers=900)
        need = busy(800, 420, limits=limits).outlook.need
        assert busy(800, need + 1, limits=limits).tick(4000, 800) == (need + 1, Reason.NOISE)
        assert busy(800, need + 2, limits=limits).tick(4000, 800) == (need, Reason.FEWER_NEEDED)


class TestBacklog:
    def test_what_will_still_wait_when_a_worker_comes_brings_some(self) -> None:
        clock = busy(20, 12)
        assert clock.tick(120, 20, queued=2000) == (40, Reason.BACKLOG)

    def test_who_lets_jobs_wait_longer_pays_for_fewer_workers(self) -> None:
        def need(target: float) -> int:
            clock = busy(20, 12, limits=replace(LIMITS, max_workers=900, target_wait_seconds=target))
            clock.tick(120, 20, queued=4000)
            return clock.outlook.need

        assert need(1) == need(START + START / 2) > 150
        assert need(START + 200) < 30

    def test_a_batch_that_comes_over_two_looks_is_no_rate_where_a_start_takes_long(self) -> None:
        """Most of what a start costs would be paid for workers that find the batch done."""
        limits = replace(LIMITS, max_workers=900)

        def most(start: float) -> int:
            clock = busy(20, 12, limits=limits)
            looks = ((500, 500), (500, 1000), *[(20, 1000)] * 5)
            return max(clock.tick(100, came, queued=queued, start_seconds=start)[0] for came, queued in looks)

        assert most(start=20) > 50
        assert most(start=60) < 40

    def test_arrivals_that_have_lasted_less_than_a_start_are_over_when_it_ends(self) -> None:
        rise = Arrivals((60.0,) * 6, mean=60.0, age=6)
        watched = History(at=0.0, look=(0.0, 1120), arrivals=rise, service=Service(SERVICE * 1e6, 1e6))
        load = Load(1000, 120, 0.0, 12, start_seconds=START)
        need = decide(load, watched, replace(LIMITS, max_workers=900), 0.5).outlook.need
        left = 1000 + 60 * 5 - 12 * 10 / SERVICE * START
        assert need == pytest.approx((120 + left * SERVICE / (START / 2)) / 10, abs=1)

    def test_workers_that_are_nearly_there_count_for_most_of_a_start(self) -> None:
        def need(coming: float) -> int:
            clock = busy(20, 22, limits=replace(LIMITS, max_workers=900))
            clock.tick(120, 20, queued=1000, starting=10, coming_seconds=coming)
            return clock.outlook.need

        assert need(START) - need(1.0) == pytest.approx(10 * (START - 1) / (START / 2), abs=2)

    def test_what_the_workers_there_will_have_done_by_then_brings_none(self) -> None:
        clock = busy(10, 8)
        clock.tick(60, 80, queued=60)
        reasons = [clock.tick(60, 10, queued=60, workers=8) for _ in range(10)]
        assert Reason.BACKLOG not in {reason for _, reason in reasons}


class TestGoing:
    def test_nobody_goes_for_a_while_after_the_need(self) -> None:
        clock = busy(20, 12)
        clock.tick(120, 20)
        went = [clock.tick(max(0, 120 - 12 * n), 12) for n in range(1, 60)]
        first = next(n for n, (_, reason) in enumerate(went) if reason is Reason.FEWER_NEEDED)
        assert clock.workers < 12
        assert first >= 3

    def test_what_was_needed_is_kept_for_a_part_of_a_start(self) -> None:
        def kept(ago: float, start: float = START) -> tuple[int, Reason]:
            clock = busy(1, 20)
            clock.history = replace(clock.history, highs=((clock.now - ago, 20),))
            return clock.tick(5, 1, start_seconds=start)

        assert kept(START * HOLD - 0.5) == (20, Reason.RECENT_NEED)
        assert kept(START * HOLD + 0.5) == (1, Reason.FEWER_NEEDED)
        assert kept(1.5, start=1) == (20, Reason.RECENT_NEED), "for two looks at least"

    def test_where_arrivals_fall_beyond_chance_they_go_with_their_jobs(self) -> None:
        clock = busy(40, 24)
        counts = [clock.tick(max(0, 200 - 40 * n), 0)[0] for n in range(1, 9)]
        assert counts[-1] == 1
        assert counts == sorted(counts, reverse=True)

    def test_a_job_that_runs_keeps_its_worker(self) -> None:
        clock = busy(40, 24)
        assert all(workers >= 10 for workers, _ in clock.ticks(30, 100))

    def test_more_workers_than_allowed_are_retired_at_once(self) -> None:
        assert Clock(workers=60).tick(500, queued=500) == (40, Reason.AT_MAX)

    def test_more_jobs_than_the_most_are_for_is_said(self) -> None:
        assert busy(80, 40).tick(400, 80, queued=500) == (40, Reason.AT_MAX)


class TestReturningSurges:
    def test_a_surge_that_has_come_twice_is_met_the_third_time(self) -> None:
        clock = busy(2, 2)
        came = []
        for second in range(400):
            clock.workers = max(2, clock.workers)
            rate = 60 if second % 120 < 40 else 2
            _, reason = clock.tick(round(rate * SERVICE), rate)
            if reason is Reason.RETURNING:
                came.append(second)
        assert came
        assert all(second % 120 >= 120 - START - 2 for second in came)
        assert min(came) >= 120, "twice it must have come before"

    def test_what_comes_back_after_a_fall_is_no_surge(self) -> None:
        clock = busy(60, 40)
        clock.ticks(3, 150, 2)
        clock.ticks(60, 30, 6)
        assert clock.history.surges.seen == ()


class TestAQueueThatStands:
    def test_it_adds_one_worker_whatever_the_forecast_says(self) -> None:
        clock = busy(1, 1)
        assert clock.tick(5, 1, queued=1, oldest=START)[0] == 1
        assert clock.tick(5, 1, queued=1, oldest=START + 0.1) == (2, Reason.WAIT)

    def test_the_next_only_after_the_last_one_had_its_chance(self) -> None:
        clock = busy(1, 2)
        counts = [clock.tick(5, 1, queued=1, oldest=30)[0] for _ in range(45)]
        assert counts == [3] * 21 + [4] * 21 + [5] * 3

    def test_none_while_one_starts(self) -> None:
        clock = busy(1, 2)
        assert {clock.tick(5, 1, queued=1, oldest=30, starting=1)[0] for _ in range(30)} == {2}

    def test_running_jobs_alone_are_no_queue(self) -> None:
        assert busy(1, 2).tick(5, 1, oldest=100)[0] <= 2


class TestZero:
    def test_the_first_job_brings_the_first_worker_at_once(self) -> None:
        assert Clock(FROM_ZERO, 0).tick(0, queued=1) == (1, Reason.FROM_ZERO)
        assert Clock(FROM_ZERO, 0).tick(0) == (0, Reason.STEADY)

    def test_so_it_does_after_a_quiet_hour(self) -> None:
        clock = busy(0, 0, 3600, FROM_ZERO)
        assert clock.tick(0, 1, queued=1) == (1, Reason.FROM_ZERO)

    def test_the_last_worker_goes_after_a_delay_of_its_own(self) -> None:
        clock = Clock(FROM_ZERO)
        clock.tick(1)
        counts = clock.ticks(302, 0)
        assert counts[:300] == [(1, Reason.ZERO_DELAY)] * 300
        assert counts[300:] == [(0, Reason.TO_ZERO), (0, Reason.STEADY)]

    def test_a_job_starts_the_delay_anew(self) -> None:
        clock = Clock(FROM_ZERO)
        clock.ticks(299, 0)
        clock.tick(1, 1)
        assert {workers for workers, _ in clock.ticks(300, 0)} == {1}
        assert clock.tick(0) == (0, Reason.TO_ZERO)

    def test_below_the_minimum_is_refilled_at_once(self) -> None:
        assert Clock(replace(LIMITS, min_workers=2), 0).tick(0) == (2, Reason.BELOW_MIN)


def test_after_a_decision_the_other_way_a_small_need_waits_for_a_start() -> None:
    clock = busy(20, 12)
    clock.history = replace(clock.history, last_down=clock.now - 5)
    clock.workers = 10
    assert clock.tick(100, 20) == (10, Reason.RECENT_CHANGE)
    assert clock.tick(100, 20, queued=1, oldest=2.0)[0] > 10


def test_limits_come_from_the_settings() -> None:
    settings = ScalerSettings(_env_file=None, target_wait_seconds=7)
    assert Limits.of(settings, 2, 5, slots=256) == Limits(2, 5, 256, 7, 300)
    given = ScalerSettings(_env_file=None, target_jobs_per_worker=4)
    assert Limits.of(given, 2, 5, slots=256).slots == 4


def test_a_decision_stays_cheap_for_ten_thousand_workers() -> None:
    """The history holds looks, not workers."""
    clock = Clock(Limits(0, 10_000, 16), 0)
    started = time.process_time()
    for second in range(2000):
        clock.tick(80_000 + (second * 7919) % 80_000, 20_000 + (second * 7919) % 9000)
    assert (time.process_time() - started) / 2000 < 0.001
    assert len(clock.history.highs) < 60
    assert len(clock.history.arrivals.counts) <= 60
