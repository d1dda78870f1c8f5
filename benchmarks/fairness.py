"""What ten jobs wait beside ten thousand of another API key: `python -m benchmarks.fairness`.

One slot whose jobs take the same time each. The ten alone; behind the others in the order of arrival, as without keys;
and with shares. Then what places in the middle of a queue cost Redis: two keys that submit as many jobs each, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis

from benchmarks.queue_peers import new_job
from benchmarks.queue_server import counts, serving
from promptq.contract.job import Result, Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.store import Ending, JobStore

AT_ONCE = 100
RESULT = Result("text", "stop", "echo", 30, 20)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--job-seconds", type=float, default=0.002)
    options = parser.parse_args()
    _print_waits(options.many, options.few, options.job_seconds)
    _print_costs((0, 100, options.many // 4))


def _print_waits(many: int, few: int, job_seconds: float) -> None:
    print(f"{few} jobs, one slot, {1000 * job_seconds:g} ms a job: ms from the submit")
    print(f"{'':34}{'mean wait':>10}{'last ended':>11}{'jobs before the last':>22}")
    for name, others, weight in (("alone", 0, 1.0), ("order of arrival", many, 0.0), ("shares", many, 1.0)):
        with serving() as client:
            waits, ended, before = _waits(_store(client), others, few, weight, job_seconds)
        label = name if not others else f"beside {others}, {name}"
        print(f"{label:34}{1000 * statistics.mean(waits):10.1f}{1000 * ended:11.1f}{before:22}")


def _waits(store: JobStore, many: int, few: int, weight: float, job_seconds: float) -> tuple[list[float], float, int]:
    """Seconds that each of the few waited, and until all had ended; how many jobs were claimed before the last one."""
    _submit(store, "warm-up", 50, weight)
    while running := store.claim("bench", 1):
        store.finish("bench", [Ending(one, Status.SUCCEEDED, RESULT) for one in running])
    _submit(store, "many", many, weight)
    running = store.claim("bench", 1)
    _submit(store, "few", few, weight)
    begun, waits, claimed = time.monotonic(), list[float](), 0
    while len(waits) < few:
        if running:
            time.sleep(job_seconds)
        _, running = store.finish_and_claim("bench", [Ending(one, Status.SUCCEEDED, RESULT) for one in running], 1)
        claimed += 1
        if store.client.hget(store.keys.job(running[0].id), "owner") == b"few":
            waits.append(time.monotonic() - begun)
    time.sleep(job_seconds)
    store.finish("bench", [Ending(one, Status.SUCCEEDED, RESULT) for one in running])
    return waits, time.monotonic() - begun, claimed - 1


def _print_costs(depths: Sequence[int]) -> None:
    print(f"\nµs of Redis's processor a submit, {AT_ONCE} at a time, a key with so many jobs waiting, and another one")
    print(f"{'':34}" + "".join(f"{depth:>9}" for depth in depths))
    ways = {"order of arrival": (0.0, 1), "shares, both as long": (1.0, 1), "shares, the other 3 times": (1.0, 3)}
    for name, (weight, times) in ways.items():
        costs = [_cost(depth, times * depth, weight) for depth in depths]
        print(f"{name:34}" + "".join(f"{cost:9.1f}" for cost in costs))


def _cost(depth: int, others: int, weight: float) -> float:
    """Of the submits of the key that has `depth` jobs waiting."""
    with serving() as client:
        store = _store(client)
        _submit(store, "other", others, weight)
        _submit(store, "own", depth, weight)
        before = counts(client, time.perf_counter)
        _submit(store, "own", 10 * AT_ONCE, weight)
        return counts(client, time.perf_counter).since(before).per(10 * AT_ONCE)["redis_cpu_us"]


def _store(client: redis.Redis) -> JobStore:
    return JobStore(client, WorkerSettings(_env_file=None, engine="echo", max_queue_jobs=10**9))


def _submit(store: JobStore, owner: str, jobs: int, weight: float) -> None:
    for start in range(0, jobs, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, jobs))
        news: list[Any] = [new_job(time.time_ns() + number, cache=False) for number in numbers]
        store.submit_many([replace(new, owner=owner, weight=weight) for new in news])


if __name__ == "__main__":
    main()
