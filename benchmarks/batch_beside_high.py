"""What a `high` job waits beside a batch that saturates its worker, and what the batch keeps: `python -m
benchmarks.batch_beside_high`.

A dispatcher, a worker with the default model, and a batch that fills all slots, as processes. The batch is alone and
beside `high` jobs by turns, so that both sides see the same machine. Waits are counted in engine steps, which the
worker writes down: a busy machine makes steps longer, and not more of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks.queue_server import serving, url_of
from promptq.contract.batch_lines import LineCheck
from promptq.contract.batches import BatchRecord
from promptq.contract.environment import child_environment
from promptq.contract.files import FileRecord, path_of
from promptq.contract.request import JobRequest
from promptq.contract.settings import CommonSettings
from promptq.openai.calls import ENDPOINTS
from promptq.queue.batches import BatchRecords
from promptq.queue.files import FileRecords
from promptq.queue.store import JobStore, NewJob
from promptq.storage.storage import Storage

URL = "/v1/completions"
LINES = 5000
WORDS = "the river went past the mill and the old men counted the boats that came by in the morning"
START_SECONDS = 900.0


@dataclass(frozen=True)
class Step:
    """One step of the engine; times in monotonic seconds."""

    began: float
    ended: float
    prefill: int
    tokens: dict[str, int]


@dataclass
class Log:
    """What the worker wrote down: its steps, and when the engine got each row first."""

    steps: list[Step] = field(default_factory=list)
    added: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Log:
        """All whole lines."""
        log = cls()
        for line in path.read_text().splitlines()[:-1]:
            fields = json.loads(line)
            if "row" in fields:
                log.added.setdefault(fields["row"], fields["at"])
            else:
                log.steps.append(Step(**fields))
        return log

    def waited(self, job_id: str, submitted: float) -> int:
        """Steps that a job waited through before the engine got it, the one under way at its submit included."""
        return sum(submitted < step.ended and step.began < self.added[job_id] for step in self.steps)

    def prefilled(self, job_id: str) -> int:
        """Steps from there up to its first token: its prompt's own computation."""
        first = next(step.ended for step in self.steps if step.tokens.get(job_id))
        return sum(self.added[job_id] <= step.began < first for step in self.steps)

    def tokens(self, since: float, until: float, ids: frozenset[str], *, of_others: bool) -> int:
        """Tokens that the steps of a span gave these jobs, or all others."""
        spans = (step.tokens for step in self.steps if since <= step.ended < until)
        return sum(count for tokens in spans for one, count in tokens.items() if (one in ids) != of_others)


@dataclass
class Run:
    """Spans in which the batch was alone, and beside `high` jobs; and these, with their submits."""

    alone: list[tuple[float, float]] = field(default_factory=list)
    beside: list[tuple[float, float]] = field(default_factory=list)
    jobs: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Measure, and print."""
    options = _options()
    with ExitStack() as stack:
        client = stack.enter_context(serving())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="promptq-bench-")))
        store = JobStore(client, CommonSettings(_env_file=None, redis_url=url_of(client), engine=options.engine))
        _start_batch(store, folder, options.tokens)
        stack.enter_context(_program(client, folder, options, "dispatcher"))
        stack.enter_context(_program(client, folder, options, "benchmarks.step_worker"))
        _await_tokens(folder / "steps", 20 * options.slots)
        run = _measure(store, options)
        _print(Log.read(folder / "steps"), run, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="continuous", help="`echo` tries the benchmark itself")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of each line")
    parser.add_argument("--high-tokens", type=int, default=16, help="of each `high` job")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two `high` jobs")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each span")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of spans")
    return parser.parse_args()


def _start_batch(store: JobStore, folder: Path, tokens: int) -> None:
    """As the API does at an upload and a create."""
    data = b"".join(_line(number, store.settings.default_model, tokens) for number in range(LINES))
    check = LineCheck(ENDPOINTS, LINES)
    check.feed(data)
    check.end()
    file = FileRecord("file-in", "", "in.jsonl", "batch", len(data), lines=LINES, first_lines=check.first_lines)
    Storage(f"file://{folder}/files").write(path_of(file.id), [data])
    FileRecords(store).put(file, None)
    BatchRecords(store).create(
        BatchRecord("batch_1", "", URL, file.id, "24h", "validating", 0.0, output_file_id="o", error_file_id="e")
    )


def _line(number: int, model: str, tokens: int) -> bytes:
    body = {"model": model, "prompt": f"{number}: {WORDS}", "max_tokens": tokens, "temperature": 0}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": URL, "body": body}).encode() + b"\n"


@contextmanager
def _program(client: redis.Redis, folder: Path, options: argparse.Namespace, module: str) -> Iterator[None]:
    values = {
        "REDIS_URL": url_of(client), "ENGINE": options.engine, "SLOTS": str(options.slots), "LOG_LEVEL": "WARNING",
        "FILES_URL": f"file://{folder}/files", "DISPATCHER_PORT": "0", "WORKER_NAME": "bench",
    }  # fmt: skip
    named = {f"PROMPTQ_{key}": value for key, value in values.items()}
    environment = child_environment(**named, STEPS_FILE=str(folder / "steps"))
    process = subprocess.Popen([sys.executable, "-m", module], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _await_tokens(path: Path, count: int) -> None:
    """Until the worker has come up, and its slots are full."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and sum(sum(step.tokens.values()) for step in Log.read(path).steps) >= count:
            return
        time.sleep(0.5)
    raise SystemExit("the worker gave no tokens")


def _measure(store: JobStore, options: argparse.Namespace) -> Run:
    run = Run()
    for _ in range(options.rounds):
        began = time.monotonic()
        time.sleep(options.seconds)
        run.alone.append((began, time.monotonic()))
        began = time.monotonic()
        for number in range(int(options.seconds / options.every)):
            time.sleep(max(0.0, began + number * options.every - time.monotonic()))
            _submit(store, run, options.high_tokens)
        time.sleep(max(0.0, began + options.seconds - time.monotonic()))
        run.beside.append((began, time.monotonic()))
        while any(job and not job.status.is_terminal for job in store.get_many(list(run.jobs))):
            time.sleep(0.05)
    return run


def _submit(store: JobStore, run: Run, tokens: int) -> None:
    prompt = f"{len(run.jobs)} times {WORDS}"
    request = JobRequest(prompt=prompt, max_tokens=tokens, priority="high", cache=False, temperature=0)
    entry = store.settings.catalogue.default
    new = NewJob.create(request, entry.name, entry.identity(store.settings.dtype))
    submitted = time.monotonic()
    run.jobs[store.submit(new).job.id] = submitted


def _print(log: Log, run: Run, options: argparse.Namespace) -> None:
    ids = frozenset(run.jobs)
    begun = [one for one in run.jobs if one in log.added]
    waits = [log.waited(one, run.jobs[one]) for one in begun]
    own = [log.prefilled(one) for one in begun]
    seconds = [log.added[one] - run.jobs[one] for one in begun]
    alone, kept = _rate(log, run.alone, ids, of_others=True), _rate(log, run.beside, ids, of_others=True)
    high = _rate(log, run.beside, ids, of_others=False)
    step = statistics.median(one.ended - one.began for one in log.steps)
    print(f"{options.slots} slots, {len(begun)} high jobs of {options.high_tokens} tokens, a step {1000 * step:.1f} ms")
    print(f"steps waited       p50 {_cut(waits, 50):.0f}, p95 {_cut(waits, 95):.0f}, most {max(waits)}")
    print(f"steps of its own   p50 {_cut(own, 50):.0f}, p95 {_cut(own, 95):.0f}, most {max(own)}")
    print(f"ms waited          p50 {1000 * _cut(seconds, 50):.1f}, p95 {1000 * _cut(seconds, 95):.1f}")
    print(f"tokens a second    batch alone {alone:.1f}; beside: batch {kept:.1f}, high {high:.1f}")
    if high > alone / 2:
        print("These are too many high jobs for this machine: they wait for one another. Raise --every.")
    print(f"the batch keeps    {kept / (alone - high):.3f} of what the high jobs leave")


def _rate(log: Log, spans: Sequence[tuple[float, float]], ids: frozenset[str], *, of_others: bool) -> float:
    """Tokens a second."""
    tokens = sum(log.tokens(since, until, ids, of_others=of_others) for since, until in spans)
    return tokens / sum(until - since for since, until in spans)


def _cut(values: Sequence[Any], percent: int) -> float:
    return float(sorted(values)[min(len(values) - 1, len(values) * percent // 100)])


if __name__ == "__main__":
    main()
