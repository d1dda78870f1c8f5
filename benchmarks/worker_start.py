"""How long a new worker takes from its spawn to its first claim: cold, and out of a spare, in turns.

`python -m benchmarks.worker_start` prints both, their ratio, and the memory that the waiting spare takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from promptq.contract.job import Status
from promptq.contract.request import JobRequest
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import JobStore, NewJob, connect
from promptq.runtime import programs
from scaler.fleets.local import SPARE_COMMAND, LocalFleet, LocalFleetSettings

POLL_SECONDS = 0.005
QUIET_SECONDS = 1.0


def main() -> None:
    """Measure both kinds, one after the other, as often as asked."""
    rounds = _options().rounds
    seconds: dict[str, list[float]] = {"cold": [], "spare": []}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder)).start()
        store = JobStore(connect(server.url), WorkerSettings())
        for _ in range(rounds):
            for kind, found in seconds.items():
                found.append(measure(store, server.url, kind == "spare"))
                print(f"{kind}: {found[-1]:.2f} s", flush=True)
        server.stop()
    cold, spare = (statistics.median(found) for found in seconds.values())
    print(f"medians of {rounds}: cold {cold:.2f} s, spare {spare:.2f} s, ratio {cold / spare:.1f}")


def measure(store: JobStore, url: str, spare: bool) -> float:
    """Seconds until a worker that is started now has claimed the job that waits."""
    environment = programs.environment(PROMPTQ_REDIS_URL=url)
    fleet = LocalFleet(LocalFleetSettings(1, environment, spare_command=SPARE_COMMAND if spare else ()))
    try:
        fleet.prepare(0, time.monotonic())
        if spare:
            _await_quiet(psutil.Process().children()[-1])
        job = store.submit(
            NewJob.create(JobRequest(prompt="one", max_tokens=1, cache=False), store.settings.default_model, "any")
        ).job
        started = time.perf_counter()
        fleet.spawn(1, store.settings.default_model, time.monotonic())
        while store.get(job.id).status is Status.QUEUED:
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - started
    finally:
        fleet.retire_all(time.monotonic())
        while fleet.roster():
            fleet.poll(time.monotonic())
            time.sleep(POLL_SECONDS)


def _await_quiet(process: psutil.Process) -> None:
    """Return once it has imported all, and tell its memory: its processor time stands still."""
    before, now = -1.0, 0.0
    while now < QUIET_SECONDS or now > before:
        time.sleep(QUIET_SECONDS)
        before, now = now, sum(process.cpu_times()[:2])
    memory = process.memory_full_info()
    print(
        f"a waiting spare: {memory.rss / 2**20:.0f} MiB RSS, {memory.pss / 2**20:.0f} PSS, {memory.uss / 2**20:.0f} USS"
    )
    print(f"its imports took {now:.1f} s of processor time")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
