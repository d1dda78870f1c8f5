"""What a thousand idle workers cost one Redis, and what one submit costs them: `python -m benchmarks.idle_workers`.

The workers are simulated: each has its name, its subscription with its pings, a heartbeat each third of a lease and a
claim with it, and one for each message, by promptq's own scripts; but one process plays them all, over one connection
for the scripts. So Redis does what it would do for as many real ones, on connections that are fewer.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import selectors
import statistics
import time
from typing import Any

import redis

from benchmarks.queue_peers import new_job
from benchmarks.queue_server import Counts, counts, serving, url_of
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.leases import BEATS_PER_LEASE
from gpu_worker.registration import WorkerRegistration
from promptq.contract.job import Job, Result, Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.connection import connect
from promptq.queue.listener import PING_SECONDS
from promptq.queue.store import Ending, JobStore

SLOTS = 16
RESULT = Result("text", "stop", "echo", 30, 20)
NAMES_AT_ONCE = 100


def main() -> None:
    """Print what Redis counts, at rest and for each submit, for every number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=15.0, help="at rest")
    parser.add_argument("--submits", type=int, default=100)
    parser.add_argument("--rate", type=float, default=4.0, help="submits a second")
    options = parser.parse_args()
    print(f"{'workers':>8}{'idle: % of a core':>19}{'commands/s':>12}{'a submit: scripts':>19}", end="")
    print(f"{'Redis CPU ms':>14}{'wait p50 ms':>13}{'p99 ms':>9}")
    for number in options.workers:
        _measure(number, options.seconds, options.submits, options.rate)


def _measure(workers: int, seconds: float, submits: int, rate: float) -> None:
    with serving("--maxclients", str(workers + 100)) as client:
        crowd = multiprocessing.get_context("spawn").Process(target=play, args=(url_of(client), workers), daemon=True)
        crowd.start()
        try:
            _await(client, workers)
            idle, scripts = _at_rest(client, seconds)
            _print(workers, idle, *_submits(client, submits, rate, idle, scripts))
        finally:
            crowd.kill()
            crowd.join()


class SimulatedWorker:
    """What one idle worker says to Redis."""

    def __init__(self, store: JobStore, settings: WorkerSettings, selector: selectors.BaseSelector) -> None:
        self.name, self._store, self._ping_at = settings.worker_name, store, 0.0
        self._registration = WorkerRegistration(store, settings, EchoEngine(SLOTS, 0).info, "")
        self._registration.appear()
        keys = settings.keys
        own = [keys.wake_channel_of(self.name)] if hasattr(keys, "wake_channel_of") else []
        self._subscription: Any = store.client.pubsub()
        self._subscription.subscribe(keys.wake_channel, *own, keys.cancel_channel, keys.watch_channel)
        selector.register(self._subscription.connection._sock, selectors.EVENT_READ, self)
        self.hear()

    def hear(self) -> None:
        """Read what came; for a message, claim."""
        while message := self._subscription.get_message(timeout=0):
            if message["type"] in ("message", "subscribe"):
                self.claim()

    def claim(self) -> None:
        """Take what there is, and end it at once."""
        if claims := self._store.claim(self.name, SLOTS):
            self._store.finish_and_claim(self.name, [Ending(one, Status.SUCCEEDED, RESULT) for one in claims], SLOTS)

    def ping(self) -> None:
        """As the listener does when nothing comes."""
        self._subscription.ping()

    def beat(self) -> None:
        """The heartbeat, and the claim with it."""
        self._registration.beat("idle", 0)
        self.claim()


def play(url: str, count: int) -> None:
    """Play so many workers, for ever."""
    base = WorkerSettings(_env_file=None, redis_url=url, engine="echo")
    store, selector = JobStore(connect(url, 60), base), selectors.DefaultSelector()
    crowd = [
        SimulatedWorker(store, base.model_copy(update={"worker_name": f"w{number}"}), selector)
        for number in range(count)
    ]
    beat_seconds, now = base.lease_seconds / BEATS_PER_LEASE, time.monotonic()
    acts = {"beat": beat_seconds, "ping": PING_SECONDS}
    # Spread over their period, as those of workers are that started one after the other.
    due = [(now + seconds * place / count, act, place) for act, seconds in acts.items() for place in range(count)]
    heapq.heapify(due)
    while True:
        for key, _ in selector.select(max(0.0, due[0][0] - time.monotonic())):
            key.data.hear()
        while due[0][0] <= time.monotonic():
            at, act, place = due[0]
            getattr(crowd[place], act)()
            heapq.heapreplace(due, (at + acts[act], act, place))


def _await(client: redis.Redis, workers: int) -> None:
    channel = WorkerSettings(_env_file=None).keys.watch_channel
    while _subscribed(client, channel) < workers:
        time.sleep(0.2)
    time.sleep(8)  # all beat late at first


def _subscribed(client: redis.Redis, channel: str) -> int:
    answer: Any = client.pubsub_numsub(channel)
    return int(answer[0][1])


def _at_rest(client: redis.Redis, seconds: float) -> tuple[Counts, int]:
    """What it counts, and how many scripts."""
    scripts, before = _scripts(client), counts(client, time.monotonic)
    time.sleep(seconds)
    return counts(client, time.monotonic).since(before), _scripts(client) - scripts


def _submits(
    client: redis.Redis, submits: int, rate: float, idle: Counts, idle_scripts: int
) -> tuple[float, float, list[float]]:
    """For each submit the scripts and Redis's processor seconds, beyond those at rest; and the jobs' waits."""
    store = JobStore(client, WorkerSettings(_env_file=None, engine="echo"))
    store.submit(new_job(-1, cache=False))
    scripts, before = _scripts(client), counts(client, time.monotonic)
    ids = [_submit(store, number, rate) for number in range(submits)]
    jobs = _ended(store, ids)
    grown = counts(client, time.monotonic).since(before)
    share = grown.seconds / idle.seconds
    cpu = (grown.cpu_seconds - share * idle.cpu_seconds) / submits
    waits = [job.started_at - job.created_at for job in jobs if job.started_at]
    return (_scripts(client) - scripts - share * idle_scripts) / submits, cpu, waits


def _submit(store: JobStore, number: int, rate: float) -> str:
    time.sleep(1 / rate)
    return store.submit(new_job(number, cache=False)).job.id


def _ended(store: JobStore, ids: list[str]) -> list[Job]:
    while True:
        jobs = [job for job in store.get_many(ids) if job and job.status.is_terminal]
        if len(jobs) == len(ids):
            return jobs
        time.sleep(0.1)


def _scripts(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


def _print(workers: int, idle: Counts, scripts: float, cpu: float, waits: list[float]) -> None:
    share, commands = 100 * idle.cpu_seconds / idle.seconds, idle.commands / idle.seconds
    p99 = statistics.quantiles(waits, n=100)[98]
    print(f"{workers:8}{share:19.1f}{commands:12.0f}{scripts:19.1f}{1000 * cpu:14.2f}", end="")
    print(f"{1000 * statistics.median(waits):13.1f}{1000 * p99:9.1f}", flush=True)


if __name__ == "__main__":
    main()
