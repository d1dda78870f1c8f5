"""How long a queued job is told that it will wait, and whether it comes true."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from promptq.contract.queues import QueueName
from promptq.queue.expected_wait import expected_wait
from promptq.queue.observations import PoolRecord, QueueState, Snapshot, WorkerRecord
from scaler.load import Limits
from scaler.pools import Pool, PoolSpec

POOL = PoolRecord(
    "m", 0, 4, wanted=1, workers=1, start_seconds=10, service_seconds=4, slots=8, running=8, queued={"default": 20},
    why="why",
)  # fmt: skip


def seconds(position: int | None, priority: str = "default", **changes: object) -> float | None:
    return expected_wait(replace(POOL, **changes), priority, position).expected_seconds


class TestOneJob:
    def test_a_free_slot_takes_it_at_once(self) -> None:
        assert seconds(1, running=6) == 0

    def test_one_begins_whenever_one_ends(self) -> None:
        assert seconds(19) == pytest.approx(20 / (8 / 4))

    def test_a_worker_that_comes_takes_as_many_as_it_has_slots(self) -> None:
        assert seconds(19, workers=2, coming=[3.0]) == pytest.approx(3 + (20 - 6 - 8) / 4)
        assert seconds(9, workers=2, coming=[3.0]) == 3
        assert seconds(3, workers=2, coming=[3.0]) == pytest.approx(2)

    def test_more_urgent_queues_are_ahead_and_a_place_far_back_is_the_end(self) -> None:
        wait = expected_wait(replace(POOL, queued={"high": 3, "default": 20, "low": 9}), "default", None)
        assert wait.jobs_ahead == 23
        assert expected_wait(replace(POOL, queued={"high": 3}), "high", 2).jobs_ahead == 2

    def test_where_there_is_no_worker_one_that_is_wanted_takes_a_start(self) -> None:
        assert seconds(0, workers=0, running=0) == 10
        assert seconds(0, workers=0, running=0, wanted=0) is None
        assert seconds(0, workers=0, running=0, waiting="waits for a GPU that b holds") is None

    def test_nothing_is_promised_before_anything_has_been_measured(self) -> None:
        assert seconds(0, service_seconds=0.0) is None

    def test_it_says_who_is_there_and_why_there_are_not_more(self) -> None:
        wait = expected_wait(replace(POOL, workers=3, coming=[1.0]), "default", 0)
        assert (wait.workers, wait.workers_coming, wait.reason) == (2, 1, "why")
        assert expected_wait(replace(POOL, waiting="waits for room"), "default", 0).reason == "waits for room"


def test_in_a_burst_it_comes_true_within_a_factor_of_two_for_four_jobs_of_five() -> None:
    told = [pair for seed in range(3) for pair in burst(seed)]
    right = [expected for expected, true in told if true / 2 <= expected <= true * 2]
    print(f"{len(right)} of {len(told)} within a factor of two")
    assert len(told) > 300
    assert len(right) >= 0.8 * len(told)


def test_so_it_does_while_starts_take_four_times_as_long_as_those_before() -> None:
    told = [pair for seed in range(6) for pair in burst(seed, slower=4)]
    right = [expected for expected, true in told if true / 2 <= expected <= true * 2]
    assert len(right) >= 0.8 * len(told)


def burst(seed: int, slower: float = 1) -> list[tuple[float, float]]:
    """What jobs that waited a second or more were told when they came, and what they waited: a real pool, and workers
    of eight slots that start in ten seconds, through calm, a burst and calm again.

    Args:
        slower: so many times as long; then the pool does not learn it.
    """
    rng, at, pool = random.Random(seed), 0.0, Pool(PoolSpec("m", Limits(1, 4, 8)))
    workers: list[float] = []
    running: list[float] = []
    queue: list[tuple[float, float | None]] = []
    ended, told = 0, []
    for second in range(240):
        at += 1.0
        for _ in range(sum(rng.random() < 0.1 for _ in range(90 if 120 <= second < 180 else 10))):
            running_, positions = len(running), len(queue)
            record = replace(pool.record("", at), running=running_, queued={"default": positions})
            queue.append((at, expected_wait(record, "default", positions).expected_seconds))
        ended += sum(until <= at for until in running)
        running = [until for until in running if until > at]
        ready = [due for due in workers if due <= at]
        while queue and len(running) < 8 * len(ready):
            since, expected = queue.pop(0)
            running.append(at + rng.expovariate(1 / 4))
            if at - since >= 1 and expected is not None:
                told.append((max(expected, 0.5), at - since))
        seen = [WorkerRecord(str(i), "busy" if due <= at else "starting", model="m", slots=8)
                for i, due in enumerate(workers)]  # fmt: skip
        state = QueueState(
            QueueName("m", "default"), len(queue), len(running), 0, 0, 0, at - queue[0][0] if queue else 0
        )
        snapshot = Snapshot([state], seen, {}, {"m": {"succeeded": ended}})
        wanted = pool.decide(snapshot, seen, at).workers
        if wanted > len(workers):
            count = wanted - len(workers)
            pool.started(count, at)
            starts = [10 * slower * rng.uniform(0.8, 1.2) for _ in range(count)]
            workers += [at + start for start in starts]
            if slower == 1:
                pool.measured = pool.measured.started(sum(starts) / count, False)
        workers = sorted(workers)[:wanted]
    return told
