"""One kill at each point of a job's way: the job ends once all the same, and `rq info`'s cleanup changes nothing."""

from __future__ import annotations

import signal
import time

import pytest
import redis
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.progress import Place, follow
from tests.fakes import TimedStore, keys, submit
from tests.processes import start, wait_until, worker

LEASE = 1.0
TEXT = " ".join(f"word{number}" for number in range(12))


@pytest.fixture
def short(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    return TimedStore(client, settings.model_copy(update={"lease_seconds": LEASE}))


def tend(store: TimedStore) -> None:
    """What goes on beside the workers: two reapers, and RQ's cleanup as `rq info` calls it."""
    for _ in range(2):
        store.reap(time.time())
    for registry in (StartedJobRegistry, FinishedJobRegistry, FailedJobRegistry):
        registry("default", connection=store.client, serializer=JSONSerializer).cleanup()


def read(store: TimedStore, job_id: str) -> str:
    """What somebody read who read along."""
    (found,) = follow(store, [Place(job_id)], watch=False)
    return "".join(text for _, text in found.entries)


@pytest.mark.parametrize(
    ("point", "attempts", "resumes"),
    [
        ("worker.claimed", 2, False), ("worker.started", 2, False), ("worker.stepped", 2, False),
        ("worker.progress_sending", 2, False), ("worker.progress_kept", 2, True), ("worker.finished", 2, True),
        ("worker.stored", 1, False), ("worker.releasing", 2, False), ("worker.released", 1, False),
    ],
)  # fmt: skip
def test_a_worker_killed_there(
    server: EmbeddedServer, short: TimedStore, point: str, attempts: int, resumes: bool
) -> None:
    drains = point.startswith("worker.releas")
    pace = 0.001 if drains else 20
    job = submit(short, TEXT, now=time.time(), cache=False).job
    doomed = start(
        "gpu_worker", server, worker_name="doomed", lease_seconds=LEASE, failpoints=f"{point}=kill",
        echo_tokens_per_second=pace, checkpoint_seconds=0.05,
    )  # fmt: skip
    if drains:
        wait_until(lambda: short.get(job.id).status is Status.RUNNING, 30, "the job to run")
        doomed.send_signal(signal.SIGTERM)
    assert doomed.wait(30) == -signal.SIGKILL
    with worker(server, "heir", lease_seconds=LEASE, checkpoint_seconds=0.05):
        wait_until(lambda: tend(short) or short.get(job.id).status is Status.SUCCEEDED, 20, "the success")
    seen = short.get(job.id)
    assert (seen.result.text, seen.attempts) == (TEXT, attempts)
    assert (seen.result.resumed_tokens > 0) == resumes
    assert TEXT.startswith(read(short, job.id))
    assert short.client.xlen(keys.results(job.id)) == 1
    assert short.client.zcard(keys.wip("default")) == 0
