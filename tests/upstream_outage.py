"""An upstream server that is killed again and again under load: `python -m tests.upstream_outage --jobs 200`."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from promptq.contract.job import Job
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.store import connect
from tests.fakes import TimedStore, submit
from tests.integration.apis import Api
from tests.integration.upstreams import models_file, store_of, worker_before
from tests.processes import free_port, start, wait_until, worker

WORDS = 20
PACE = 20.0


@dataclass
class Figures:
    """What came of the jobs, and of the server's deaths."""

    jobs: int
    seconds: float = 0.0
    kills: int = 0
    down_seconds: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)
    wrong_texts: int = 0
    attempts: dict[int, int] = field(default_factory=dict)
    requeued: dict[str, int] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    back_at_work_seconds: list[float] = field(default_factory=list)


class Mortal:
    """An API that may be killed with all its processes, and comes back at the same port."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self._server, self._folder, self.port = server, folder, free_port()
        self.rise()

    def rise(self) -> None:
        settings = {"api_port": self.port, "data_dir": self._folder, "api_processes": 1, "cache_ttl_seconds": 0}
        self.process: subprocess.Popen[bytes] = start("api", self._server, **settings)
        wait_until(Api(self.process, self.port, self._folder).lives, 60, "the API")

    def kill(self) -> None:
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for one in family:
            one.kill()
        self.process.wait()
        psutil.wait_procs(family, 10)


@dataclass
class Stack:
    """Both promptqs: the one that generates, and the queue before it."""

    far: Mortal
    near: TimedStore

    def trouble(self) -> str:
        workers = Observer(self.near.client, self.near.settings).workers()
        return workers[0].trouble if workers else ""

    def jobs(self, ids: list[str]) -> list[Job]:
        return [job for job in self.near.get_many(ids) if job]

    def ended(self, ids: list[str]) -> int:
        return sum(job.status.is_terminal for job in self.jobs(ids))


@contextmanager
def stack(folder: Path, slots: int) -> Iterator[Stack]:
    with ExitStack() as held:
        servers = [EmbeddedServer(folder / name).start() for name in ("far", "near")]
        for server in servers:
            held.callback(server.stop)
        far = Mortal(servers[0], folder / "api")
        held.callback(lambda: far.kill())
        held.enter_context(worker(servers[0], "echo", slots=slots, echo_tokens_per_second=PACE))
        models = models_file(folder, f"http://127.0.0.1:{far.port}/v1", slots=slots)
        near = store_of(held.enter_context(connect(servers[1].url)), models_file=str(models))
        held.enter_context(worker_before(servers[1], models))
        yield Stack(far, near)


def outage(jobs: int, kills: int, down_seconds: float, slots: int = 16) -> Figures:
    """Kill the server `kills` times for so long while it generates `jobs` texts; wait until all have ended."""
    figures = Figures(jobs)
    with tempfile.TemporaryDirectory() as folder, stack(Path(folder), slots) as it:
        began = time.monotonic()
        prompts = [" ".join(f"{number}.{word}" for word in range(WORDS)) for number in range(jobs)]
        ids = [submit(it.near, prompt, now=time.time(), cache=False).job.id for prompt in prompts]
        for number in range(kills):
            wait_until(lambda share=(number + 1) / (kills + 2): it.ended(ids) >= share * jobs, 300, "some ends")
            _kill(it, ids, down_seconds, figures)
        wait_until(lambda: it.ended(ids) == jobs, 300, "all ends")
        figures.seconds = round(time.monotonic() - began, 1)
        _read(it, ids, prompts, figures)
    return figures


def _kill(it: Stack, ids: list[str], down_seconds: float, figures: Figures) -> None:
    killed = time.monotonic()
    it.far.kill()
    figures.kills += 1
    figures.troubles.append(wait_until(it.trouble, 10, "trouble"))
    time.sleep(max(0.0, down_seconds - (time.monotonic() - killed)))
    it.far.rise()
    risen, before = time.monotonic(), it.ended(ids)
    figures.down_seconds += round(risen - killed, 1)
    wait_until(lambda: it.ended(ids) > before, 120, "the first end after it came back")
    figures.back_at_work_seconds.append(round(time.monotonic() - risen, 1))


def _read(it: Stack, ids: list[str], prompts: list[str], figures: Figures) -> None:
    jobs, totals = it.jobs(ids), Observer(it.near.client, it.near.settings).totals()
    figures.ends = dict(Counter(job.status.value for job in jobs))
    figures.attempts = dict(Counter(job.attempts for job in jobs))
    texts = [job.result.text if job.result else "" for job in jobs]
    figures.wrong_texts = sum(text != prompt for text, prompt in zip(texts, prompts, strict=True))
    figures.requeued = {name: count for name, count in totals.items() if name.startswith("requeued:")}


def main() -> None:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--down", type=float, default=5.0, help="seconds each time, and the API's start")
    given = parser.parse_args()
    print(json.dumps(asdict(outage(given.jobs, given.kills, given.down)), indent=2))


if __name__ == "__main__":
    main()
