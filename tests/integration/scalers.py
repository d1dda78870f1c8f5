"""A scaler of its own for a test, and what it says of itself."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer, Snapshot
from promptq.queue.store import connect
from tests.fakes import SETTINGS, TimedStore, submit
from tests.processes import free_port, start, wait_for_value, wait_until

FAST = {
    "tick_seconds": 0.1,
    "slots": 4,
    "echo_tokens_per_second": 20,
    "lease_seconds": 1,
}
TEN_WORDS = "one two three four five six seven eight nine ten"


class Scaler:
    """A running scaler, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, observer: Observer) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.observer = observer

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return reply.read().decode()

    def decisions(self) -> dict[tuple[str, str], float]:
        found = re.findall(
            r'decisions_total{action="(\w+)",model="[^"]*",reason="(\w+)"} ([\d.]+)', self.get("/metrics")
        )
        return {(action, reason): float(count) for action, reason, count in found}

    def value(self, sample: str) -> float | None:
        found = re.search(rf"^{re.escape(sample)} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return float(found[1]) if found else None

    def exits(self) -> dict[str, float]:
        """How many workers have ended, by reason, of those reasons that there were."""
        found = re.findall(r'worker_exits_total{reason="(\w+)"} ([\d.]+)', self.get("/metrics"))
        return {reason: float(count) for reason, count in found if float(count)}

    def reaches(self, sample: str, expected: float, seconds: float = 10) -> None:
        """Wait until it shows that: it counts what has happened in its next round."""
        wait_for_value(lambda: self.value(sample), expected, seconds, sample)

    def snapshot(self) -> Snapshot:
        return self.observer.snapshot()

    def workers(self) -> set[str]:
        return {worker.name for worker in self.observer.workers()}

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def has(self, count: int, seconds: float = 30) -> set[str]:
        """The workers, as soon as there are so many and no more processes than that."""
        wait_until(lambda: len(self.workers()) == count and len(self.children()) == count, seconds, f"{count} workers")
        return self.workers()

    def looks(self) -> None:
        """Wait for a round that begins from now on: the scaler has seen what we have."""
        now = time.time()
        wait_until(lambda: (self.value("promptq_scaler_last_loop_timestamp_seconds") or 0) > now, 10, "a round")


@contextmanager
def scaler(server: EmbeddedServer, **settings: Any) -> Iterator[Scaler]:
    port = free_port()
    process = start("scaler", server, scaler_port=port, **FAST | settings)
    with connect(server.url) as client:
        running = Scaler(process, port, Observer(client, SETTINGS))
        try:
            yield running
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()


def put(store: TimedStore, count: int, prompt: str = TEN_WORDS) -> list[str]:
    return [submit(store, prompt, now=time.time(), cache=False).job.id for _ in range(count)]


def all_succeed(store: TimedStore, ids: list[str], seconds: float = 60) -> None:
    wait_until(lambda: all(store.get(job).status is Status.SUCCEEDED for job in ids), seconds, "every job's success")
