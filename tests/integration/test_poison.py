"""Jobs that kill their worker each time, and those that share a batch with them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, submit
from tests.processes import start, wait_until

LEASE = 1.0


@contextlib.contextmanager
def replaced_workers(
    server: EmbeddedServer, store: TimedStore, count: int = 1, module: str = "tests.poison_worker"
) -> Iterator[list[int]]:
    """Workers that are replaced when they die, and a reaper; the list tells the exit codes."""
    deaths: list[int] = []
    closing = threading.Event()

    def keep_one() -> None:
        while not closing.is_set():
            process = start(module, server, lease_seconds=LEASE, slots=8, echo_tokens_per_second=20)
            while process.poll() is None and not closing.wait(0.05):
                pass
            deaths.append(process.poll() or 0)
            process.kill()
            process.wait()

    def keep_reaping() -> None:
        while not closing.wait(0.1):
            store.reap(time.time())

    threads = [threading.Thread(target=keep_one) for _ in range(count)] + [threading.Thread(target=keep_reaping)]
    for thread in threads:
        thread.start()
    try:
        yield deaths
    finally:
        closing.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def short(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    return TimedStore(client, settings.model_copy(update={"lease_seconds": LEASE}))


def test_a_poison_job_ends_as_worker_lost_and_takes_nobody_with_it(server: EmbeddedServer, short: TimedStore) -> None:
    poison = submit(short, "poison", now=time.time(), cache=False).job
    mates = [submit(short, f"mate {i}", now=time.time(), cache=False).job for i in range(6)]
    with replaced_workers(server, short) as deaths:
        ended = [poison, *mates]
        wait_until(lambda: all(short.get(job.id).status.is_terminal for job in ended), 90, "every end")
    lost = short.get(poison.id)
    assert (lost.status, lost.error.type, lost.attempts) == (Status.FAILED, "worker_lost", 3)
    assert {short.get(job.id).status for job in mates} == {Status.SUCCEEDED}
    assert max(short.get(job.id).attempts for job in mates) <= 3
    assert deaths.count(-9) == 3


def test_jobs_behind_a_poison_job_are_done_by_the_other_worker(server: EmbeddedServer, short: TimedStore) -> None:
    submit(short, "poison", now=time.time(), cache=False)
    with replaced_workers(server, short, count=2):
        others = [submit(short, f"other {i}", now=time.time(), cache=False).job for i in range(30)]
        wait_until(lambda: all(short.get(job.id).status is Status.SUCCEEDED for job in others), 90, "the others")
