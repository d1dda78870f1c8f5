"""The service under an experiment: a server, the API, workers or a scaler; and an open-loop client."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT

from promptq.contract.environment import child_environment
from promptq.queue.embedded import EmbeddedServer, free_port

START_SECONDS = 300.0
WAIT_SECONDS = 60
REPEATS = 3
WORDS = 12
Body = Callable[[random.Random, int], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """One job: when it was due after the start, how long it took from there, and the job itself, if it succeeded."""

    due: float
    seconds: float
    job: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how fast an experiment goes: short with the echo engine, long with the model."""

    engine: str
    seconds: float
    rate: float

    @property
    def settings(self) -> dict[str, Any]:
        """For the record."""
        return {"engine": self.engine, "seconds": self.seconds, "rate": self.rate, "repeats": REPEATS}


class WorkerLoop:
    """A running service, and where it answers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.port, self.scaler_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = EmbeddedServer(folder / "valkey").start()
        own = {"redis_url": self._server.url, "data_dir": ROOT / ".promptq", "api_port": self.port, "api_processes": 1}
        own |= {"scaler_port": self.scaler_port, "dispatcher_port": 0, "log_level": "WARNING", **settings}
        self._environment = child_environment(**{f"PROMPTQ_{name.upper()}": str(value) for name, value in own.items()})
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *program: str, **settings: Any) -> None:
        """`python` with these arguments."""
        more = {f"PROMPTQ_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, *program]
        self._processes.append(subprocess.Popen(command, env={**self._environment, **more}, cwd=ROOT))

    def get(self, path: str) -> Any:
        """A JSON answer of the API."""
        with urllib.request.urlopen(self.url + path, timeout=WAIT_SECONDS + 30) as answer:
            return json.load(answer)

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        """The new job."""
        request = urllib.request.Request(self.url + "/v1/jobs", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def generate(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Submit and wait for the end; None unless it succeeded."""
        data, headers = json.dumps(body).encode(), {"Prefer": f"wait={WAIT_SECONDS}"}
        with suppress(OSError):
            request = urllib.request.Request(self.url + "/v1/jobs", data, headers)
            with urllib.request.urlopen(request, timeout=WAIT_SECONDS + 30) as answer:
                job: dict[str, Any] = json.load(answer)
                return job if job["status"] == "succeeded" else None
        return None

    def await_workers(self, count: int) -> None:
        """Wait until so many workers are idle."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError):
                if sum(worker["state"] == "idle" for worker in self.get("/v1/workers")["workers"]) >= count:
                    return
            time.sleep(0.1)
        raise TimeoutError("the workers did not start")

    def stop(self) -> None:
        """End everything."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(60)
        self._server.stop()


@contextmanager
def service(workers: int = 1, scaler: Sequence[str] = (), **settings: Any) -> Iterator[WorkerLoop]:
    """The API with so many workers, or with a scaler that starts them; ended at the end.

    Args:
        scaler: what python is to run as the scaler; empty: there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = WorkerLoop(Path(folder), **settings)
        try:
            running.start("-m", "api")
            for number in range(0 if scaler else workers):
                running.start("-m", "gpu_worker", worker_name=f"w{number}")
            if scaler:
                running.start(*scaler)
            running.await_workers(workers)
            yield running
        finally:
            running.stop()


def offer(running: WorkerLoop, rate: float, seconds: float, seed: int, body: Body | None = None) -> list[Done]:
    """Poisson arrivals for some seconds; all ends are awaited. Latency counts from when a job was due."""
    dice, begun = random.Random(seed), time.monotonic()
    done: list[Done] = []
    threads, due, number = [], dice.expovariate(rate), 0
    while due < seconds:
        time.sleep(max(0.0, begun + due - time.monotonic()))
        thread = threading.Thread(target=_one, args=(running, begun, due, (body or fresh)(dice, number), done))
        thread.start()
        threads.append(thread)
        due, number = due + dice.expovariate(rate), number + 1
    for thread in threads:
        thread.join()
    return done


def fresh(dice: random.Random, number: int) -> dict[str, Any]:
    """A prompt like no other, without the cache."""
    words = " ".join(dice.choice(("sea", "wind", "lamp", "road", "song", "bread")) for _ in range(WORDS))
    return {"prompt": f"{number} {words}", "max_tokens": WORDS, "cache": False}


def durations(done: list[Done]) -> list[float]:
    """End to end, of those that succeeded."""
    return [one.seconds for one in done if one.job]


def scale() -> Scale:
    """From the command line: `--engine continuous` for the model; the default is the echo engine, and short."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("echo", "continuous"), default="echo")
    parser.add_argument("--seconds", type=float, help="of each run")
    parser.add_argument("--rate", type=float, help="jobs a second that one worker can just about do")
    given = parser.parse_args()
    seconds, rate = (4.0, 20.0) if given.engine == "echo" else (20.0, 12.0)
    return Scale(given.engine, given.seconds or seconds, given.rate or rate)


def _one(running: WorkerLoop, begun: float, due: float, body: dict[str, Any], done: list[Done]) -> None:
    job = running.generate(body)
    done.append(Done(due, time.monotonic() - begun - due, job))
