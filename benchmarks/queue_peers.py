"""The queues that are compared. Each fills itself with no-op jobs of about 300 bytes, and has workers as processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from benchmarks.queue_server import url_of
from promptq.contract.environment import child_environment
from promptq.contract.keys import Keys
from promptq.contract.request import JobRequest
from promptq.contract.settings import WorkerSettings
from promptq.queue.records import NewJob
from promptq.queue.store import JobStore

HERE = Path(__file__).parent
PROMPT = "x" * 280


class Peer(Protocol):
    """One kind of queue, with workers that take so many jobs at a time."""

    size: int

    def fill(self, client: redis.Redis, jobs: int) -> None:
        """Put so many jobs in."""
        ...

    def done(self, client: redis.Redis) -> int:
        """How many have ended, in one cheap command."""
        ...

    def work(self, client: redis.Redis) -> subprocess.Popen[bytes]:
        """Start one worker process."""
        ...


@dataclass
class Ours:
    """`python -m gpu_worker` on the echo engine at pace 0: all of the real worker but the model."""

    size: int
    cache: bool = False

    def fill(self, client: redis.Redis, jobs: int) -> None:
        store = JobStore(client, WorkerSettings(_env_file=None, engine="echo", max_queue_jobs=10**9))
        for start in range(0, jobs, 100):
            news = [new_job(start + i, self.cache) for i in range(min(100, jobs - start))]
            store.submit_many(news)

    def done(self, client: redis.Redis) -> int:
        return int(client.zcard(Keys().finished("default")))

    def work(self, client: redis.Redis) -> subprocess.Popen[bytes]:
        values = {"REDIS_URL": url_of(client), "ENGINE": "echo", "ECHO_TOKENS_PER_SECOND": "0", "SLOTS": str(self.size)}
        # Beside a line of the log for each job there is none in the others.
        values["LOG_LEVEL"] = "WARNING"
        named = {f"PROMPTQ_{name}": value for name, value in values.items()}
        return subprocess.Popen([sys.executable, "-m", "gpu_worker"], env=child_environment((), **named))


def new_job(number: int, cache: bool = True) -> NewJob:
    """A job of about 300 bytes that no other one equals."""
    return NewJob.create(JobRequest(prompt=f"{PROMPT} {number}", cache=cache), "echo", "echo")


@dataclass
class Rq:
    """RQ's own enqueue, and its SimpleWorker, which takes one job at a time and does not fork."""

    size: int = 1

    def fill(self, client: redis.Redis, jobs: int) -> None:
        queue = Queue("stock", connection=client, serializer=JSONSerializer)
        for number in range(jobs):
            queue.enqueue("benchmarks.queue_workers.nothing", prompt=f"{PROMPT} {number}")

    def done(self, client: redis.Redis) -> int:
        return int(client.zcard("rq:finished:stock"))

    def work(self, client: redis.Redis) -> subprocess.Popen[bytes]:
        return _module("rq", client)


@dataclass
class Bare:
    """The least that is a queue of jobs with leases and results to poll: a list, a hash a job, two scripts, no RQ."""

    size: int

    def fill(self, client: redis.Redis, jobs: int) -> None:
        with client.pipeline(transaction=False) as pipe:
            for number in range(jobs):
                pipe.hset(f"bare:job:{number:032d}", mapping={"data": f'{{"prompt":"{PROMPT} {number}"}}'})
                pipe.rpush("bare:queue", f"{number:032d}")
            pipe.execute()

    def done(self, client: redis.Redis) -> int:
        return int(client.get("bare:done") or 0)

    def work(self, client: redis.Redis) -> subprocess.Popen[bytes]:
        return _module("bare", client, str(self.size))


@dataclass
class Celery:
    """Celery with celery-batches, a solo pool, in an interpreter of its own."""

    size: int
    python: str

    def fill(self, client: redis.Redis, jobs: int) -> None:
        subprocess.run([*self._script(client), "fill", str(jobs)], check=True)

    def done(self, client: redis.Redis) -> int:
        return int(client.get("peer:done") or 0)

    def work(self, client: redis.Redis) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self._script(client), "work"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _script(self, client: redis.Redis) -> Sequence[str]:
        # -P: not with this folder on the path, where `queue` is not what the standard library means.
        return [self.python, "-P", str(HERE / "celery_peer.py"), url_of(client), str(self.size)]


def _module(*arguments: object) -> subprocess.Popen[bytes]:
    kind, client, *rest = arguments
    assert isinstance(client, redis.Redis)
    command = [sys.executable, "-m", "benchmarks.queue_workers", str(kind), url_of(client), *map(str, rest)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
