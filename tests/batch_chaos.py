"""Batches while everything is killed at random: `python -m tests.batch_chaos --lines 50000 --seed 1`.

Two dispatchers, the API, the scaler, its workers and Redis are killed, paused and cut off until the batches have ended.
Then every custom_id must be exactly once in the output or the error file, with its own words, and the counts right.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from promptq.queue.store import JobStore
from tests.chaos.audit import wait_for_rest
from tests.chaos.facts import BatchFact, Facts
from tests.chaos.invariants import check
from tests.chaos.stack import Stack, pause, send
from tests.fakes import SETTINGS as SETTINGS_OF_TESTS
from tests.processes import wait_until

DISPATCHERS = ("dispatcher", "dispatcher-2")
LEASE_SECONDS = 3.0
SETTINGS = {
    "lease_seconds": LEASE_SECONDS, "echo_tokens_per_second": 0, "slots": 16, "max_queue_jobs": 5000, "max_workers": 2,
    "max_attempts": 50, "min_workers": 2,
}  # fmt: skip
CHAT = "/v1/chat/completions"
PATIENCE_SECONDS = 7200.0
REST_SECONDS = 120.0
START_SECONDS = 600.0
KINDS = {"kill": ("dispatcher", "worker", "api", "scaler", "redis"), "pause": ("dispatcher", "worker")}


@dataclass
class Memory:
    """A program's resident memory, in MiB: the most that any of its processes had, early and late in the run."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def summary(self) -> str:
        """The most in each half of the run."""
        middle = (self.samples[0][0] + self.samples[-1][0]) / 2
        halves = ([size for at, size in self.samples if (at > middle) is late] or [0.0] for late in (False, True))
        return " then ".join(f"{max(half):.0f}" for half in halves)


class Trouble(threading.Thread):
    """Kills and pauses, at random moments, until it is told to stop."""

    def __init__(self, stack: Stack, seed: int, every: float) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.memory: dict[str, Memory] = {}
        self.closing = threading.Event()
        self._stack = stack
        self._random = random.Random(seed)
        self._every = every

    def run(self) -> None:
        """A fault every so often; memory is looked at in between."""
        next_at = time.monotonic() + self._every
        while not self.closing.wait(1.0):
            with contextlib.suppress(psutil.Error):
                self._look()
            if time.monotonic() >= next_at:
                self._strike()
                next_at = time.monotonic() + self._random.uniform(0.3, 1.7) * self._every

    def _strike(self) -> None:
        what = self._random.choice(["kill"] * 4 + ["pause"])
        whom = self._random.choice(KINDS[what])
        if whom == "redis":
            self._stack.server.stop(kill=True)
            time.sleep(self._random.uniform(0, 2))
            self._stack.server.start()
            self.done["kill redis"] += 1
            return
        pids = self._pids(whom)
        if pids:
            pid = self._random.choice(pids)
            seconds = LEASE_SECONDS * self._random.uniform(1.2, 2.5)
            hit = send(pid, signal.SIGKILL) if what == "kill" else pause(pid, seconds)
            self.done[f"{what} {whom}"] += hit

    def _pids(self, whom: str) -> list[int]:
        if whom == "worker":
            return sorted(self._stack.workers())
        names = DISPATCHERS if whom == "dispatcher" else (whom,)
        return [self._stack.processes[name].pid for name in names]

    def _look(self) -> None:
        for process in self._stack.descendants():
            with contextlib.suppress(psutil.Error, IndexError):
                words = process.cmdline()
                name = words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name
                size = process.memory_info().rss / 2**20
                self.memory.setdefault(name, Memory()).samples.append((time.monotonic(), size))
        if self._stack.server.process:
            size = psutil.Process(self._stack.server.process.pid).memory_info().rss / 2**20
            self.memory.setdefault("redis", Memory()).samples.append((time.monotonic(), size))


def patiently(call: Callable[[], requests.Response]) -> requests.Response:
    """The answer, however often it takes; one that says that the request is wrong raises."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            answer = call()
            if answer.ok:
                return answer
            assert answer.status_code in (408, 429) or answer.status_code >= 500, answer.text
        time.sleep(0.3)
    raise AssertionError("no answer")


def expected(custom_id: str) -> str:
    """What a line says, and its answer."""
    batch, _, number = custom_id.partition("-")
    return f"b{batch} n{number} and more words"


def lines_of(batch: int, count: int) -> Iterator[bytes]:
    """Lines whose words say whose they are. No two are alike, so that none joins another."""
    for number in range(count):
        words = expected(f"{batch}-{number}")
        body = {"model": "echo", "messages": [{"role": "user", "content": words}]}
        line = {"custom_id": f"{batch}-{number}", "method": "POST", "url": CHAT, "body": body | {"max_tokens": 16}}
        yield json.dumps(line).encode() + b"\n"


def start_batch(stack: Stack, folder: Path, batch: int, count: int) -> str:
    """Upload the lines, and run them; gives the batch's id."""
    path = folder / f"{batch}.jsonl"
    with path.open("wb") as file:
        file.writelines(lines_of(batch, count))

    def upload() -> requests.Response:
        with path.open("rb") as file:
            return requests.post(f"{stack.url}/v1/files", files={"file": file}, data={"purpose": "batch"}, timeout=120)

    body = {"input_file_id": patiently(upload).json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    headers = {"Idempotency-Key": f"batch-{batch}"}

    def create() -> requests.Response:
        return requests.post(f"{stack.url}/v1/batches", json=body, headers=headers, timeout=30)

    return str(patiently(create).json()["id"])


def read_batch(stack: Stack, batch_id: str) -> Any:
    """The batch as it stands."""
    return patiently(lambda: requests.get(f"{stack.url}/v1/batches/{batch_id}", timeout=30)).json()


def entries(stack: Stack, file_id: str | None) -> list[dict[str, Any]]:
    """What a file has."""
    if not file_id:
        return []
    url = f"{stack.url}/v1/files/{file_id}/content"
    return [json.loads(one) for one in patiently(lambda: requests.get(url, timeout=300)).content.splitlines()]


def batch_fact(stack: Stack, batch: int, batch_id: str, count: int) -> BatchFact:
    """What is to be seen of a batch that has ended."""
    found = read_batch(stack, batch_id)
    answered, failed = entries(stack, found["output_file_id"]), entries(stack, found["error_file_id"])
    wanted = [f"{batch}-{number}" for number in range(count)]
    return BatchFact(batch_id, found["status"], found["request_counts"], answered, failed, expected, wanted)


def audit(stack: Stack, ids: Sequence[str], counts: Sequence[int]) -> list[str]:
    """What is wrong, at rest."""
    batches = [batch_fact(stack, batch, one, counts[batch]) for batch, one in enumerate(ids)]
    with stack.client as client:
        # A dispatcher that was paused may have submitted lines once more that were done by then.
        rested = wait_for_rest(client, REST_SECONDS)
        facts = Facts(JobStore(client, SETTINGS_OF_TESTS), batches=batches, errors=frozenset({"worker_lost"}))
        found = [f"{law}: {line}" for law, lines in check(facts).items() for line in lines]
    return found if rested else ["the queue did not come to rest", *found]


def run(folder: Path, lines: int, seed: int, batches: int, every: float) -> list[str]:
    """One run: what is wrong, and a report on the way."""
    stack = Stack(folder, programs=("api", "scaler", *DISPATCHERS), **SETTINGS)
    stack.up()
    trouble = Trouble(stack, seed, every)
    try:
        wait_until(lambda: _answers(stack), START_SECONDS, "the API")
        began = time.monotonic()
        counts = [lines // batches for _ in range(batches)]
        trouble.start()
        ids = [start_batch(stack, folder, batch, count) for batch, count in enumerate(counts)]
        pending = set(ids)
        while pending and time.monotonic() < began + PATIENCE_SECONDS:
            time.sleep(1)
            pending = {one for one in pending if read_batch(stack, one)["status"] != "completed"}
        seconds = time.monotonic() - began
        trouble.closing.set()
        trouble.join()
        wrong = audit(stack, ids, counts)
        _report(trouble, lines, seconds, stack)
    finally:
        trouble.closing.set()
        left = stack.down()
    return wrong + [f"left behind: {process}" for process in left]


def _answers(stack: Stack) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{stack.url}/readyz", timeout=5).ok
    return False


def _report(trouble: Trouble, lines: int, seconds: float, stack: Stack) -> None:
    print(f"{lines} lines in {seconds:.0f} s, {sum(trouble.done.values())} faults, {stack.restarts} restarts")
    print("  " + ", ".join(f"{kind}: {count}" for kind, count in sorted(trouble.done.items())))
    for name, memory in sorted(trouble.memory.items()):
        print(f"  {name}: {memory.summary()} MiB")


def main() -> int:
    """0: every line is where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults, about")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = run(Path(folder), given.lines, given.seed, given.batches, given.every)
    print("\n".join(wrong[:20]) or "every line is there once")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
