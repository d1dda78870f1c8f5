"""Hosts whose clocks differ by an hour, and clocks that are set while jobs run: nobody loses an attempt or his time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import requests

from promptq.contract.environment import child_environment
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore
from tests.clocks import Clock, can_shift_clocks
from tests.processes import free_port, start, wait_until

pytestmark = pytest.mark.skipif(not can_shift_clocks(), reason="no compiler (cc) for the library that shifts clocks")

HOUR = 3600.0
JOBS = 60
LEASE = 3.0


class Hosts:
    """An API, a scaler with a worker of its own, and two workers, each on a host with its own clock."""

    NAMES = ("api", "scaler", "early", "late")

    def __init__(self, server: EmbeddedServer, folder: Path, **offsets: float) -> None:
        self.clocks = {name: Clock(folder, name, offsets.get(name, 0.0)) for name in self.NAMES}
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._server = server
        self._common = {"lease_seconds": LEASE, "echo_tokens_per_second": 20, "data_dir": folder}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("api", "api", api_port=port, api_processes=1)
        for name in ("early", "late"):
            self._start("gpu_worker", name, worker_name=name)

    def start_scaler(self) -> None:
        """Once the others are there: they count for the least number."""
        self._start("scaler", "scaler", scaler_port=0, min_workers=3, max_workers=3)

    def _start(self, module: str, name: str, **settings: Any) -> None:
        self.processes.append(start(module, self._server, self.clocks[name], **self._common, **settings))

    def submit(self, number: int) -> str:
        """A job of some seconds, with limits that a clock that is wrong would have passed long ago."""
        body = {"prompt": f"job {number} " + "word " * 40, "cache": False, "timeout_seconds": 30, "ttl_seconds": 60}
        answer = requests.post(f"{self.url}/v1/jobs", json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


@contextlib.contextmanager
def hosts(server: EmbeddedServer, client: redis.Redis, folder: Path, **offsets: float) -> Iterator[Hosts]:
    started = Hosts(server, folder, **offsets)
    try:
        observer = Observer(client, WorkerSettings(_env_file=None))
        wait_until(lambda: len(observer.workers()) == 2, 60, "the workers")
        started.start_scaler()
        wait_until(lambda: len(observer.workers()) == 3, 60, "the scaler's worker")
        yield started
    finally:
        started.close()


def all_went_well(client: redis.Redis, ids: list[str]) -> None:
    store = JobStore(client, WorkerSettings(_env_file=None))
    wait_until(lambda: all(job and job.status.is_terminal for job in store.get_many(ids)), 90, "every end")
    jobs = [store.get(job_id) for job_id in ids]
    assert {(job.status.value, job.attempts, job.error) for job in jobs} == {("succeeded", 1, None)}
    totals = Observer(client, WorkerSettings(_env_file=None)).totals()
    assert {name: totals.get(name, 0) for name in ("lease_expiries", "expired", "failed", "requeued:worker_lost")} == {
        "lease_expiries": 0, "expired": 0, "failed": 0, "requeued:worker_lost": 0,
    }  # fmt: skip
    assert totals["succeeded"] == len(ids)


def test_the_library_shifts_the_time_of_day_and_no_other(tmp_path: Path) -> None:
    clock = Clock(tmp_path, "c", HOUR)
    program = "import time, sys\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=child_environment(**clock.environment), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for offset in (HOUR, -700.0, 20.5):
        clock.set(offset)
        process.stdin.write("\n")
        process.stdin.flush()
        seen, steady = map(float, process.stdout.readline().split())
        assert seen - time.time() == pytest.approx(offset, abs=2)
        assert steady == pytest.approx(time.monotonic(), abs=2)
    process.communicate()


def test_hosts_that_are_an_hour_early_and_late_lose_nothing(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    with hosts(server, client, tmp_path, api=-60, scaler=20, early=HOUR, late=-HOUR) as running:
        all_went_well(client, [running.submit(number) for number in range(JOBS)])


@pytest.mark.parametrize("seconds", [20.0, 700.0])
def test_clocks_that_are_set_while_jobs_run_lose_nothing(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path, seconds: float
) -> None:
    with hosts(server, client, tmp_path) as running:
        ids = [running.submit(number) for number in range(JOBS)]
        wait_until(lambda: client.zcard("rq:wip:default"), 30, "the first claims")
        signs = {"early": 1, "late": -1, "scaler": 1, "api": -1}
        for step in (1, -1, 2, 0):
            for name, sign in signs.items():
                running.clocks[name].set(sign * step * seconds)
            time.sleep(0.7)  # something must run under each
        all_went_well(client, ids)
