"""How late a token is at those who read along, and what it costs: `make bench-stream`.

Streams: one API process, echo workers whose words are moments (`stream_worker.py`), and a client with so many open
streams (`stream_client.py`). All rows of a worker get their words in the same step, as on a real engine.
Checkpoints (`--checkpoints`): tokens per second of the real model with and without, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
import requests

from benchmarks.api import wait_for
from benchmarks.queue_server import serving, url_of
from promptq.contract.environment import child_environment
from promptq.contract.job import Status
from promptq.contract.request import JobRequest
from promptq.contract.settings import CommonSettings
from promptq.queue.embedded import free_port
from promptq.queue.records import NewJob
from promptq.queue.store import JobStore

Row = dict[str, float]
PROMPT = "Once upon a time there was"


def main() -> None:
    """Run what is asked for, print a line for each run, and write all as JSON."""
    options = _options()
    runs: dict[str, Any] = {"options": vars(options)}
    if options.checkpoints:
        runs["checkpoints"] = _checkpoints(options)
    else:
        runs["streams"] = {count: _streams(count, options) for count in options.streams}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(runs, indent=1, default=str) + "\n")
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--pace", type=float, default=4.0, help="words a second of each stream")
    parser.add_argument("--words", type=int, default=60, help="of each job")
    parser.add_argument("--slots", type=int, default=250, help="rows of one worker")
    parser.add_argument("--checkpoints", action="store_true", help="measure those, on the real model")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of runs, of checkpoints")
    parser.add_argument("--rows", type=int, default=16, help="jobs of each run, of checkpoints")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stream.json"))
    return parser.parse_args()


def _streams(count: int, options: argparse.Namespace) -> Row:
    with ExitStack() as stack:
        client = stack.enter_context(serving())
        store = _store(client, "echo")
        ids = _submit(store, [JobRequest(prompt="x " * options.words, max_tokens=options.words, cache=False)] * count)
        url, process = stack.enter_context(_api(client, count))
        before = _memory(process)
        reader = stack.enter_context(_reader(url, ids))
        livez = stack.enter_context(_Livez(url))
        server = _server_counts(client)
        for number in range(-(-count // options.slots)):
            stack.enter_context(_worker(client, f"w{number}", "benchmarks.stream_worker", options))
        said = json.loads(reader.stdout.read()) if reader.stdout else {}
        spent = {name: value - server[name] for name, value in _server_counts(client).items()}
        growth = _memory(process) - before
    assert said["words"] == [options.words] * count, "a word was lost or came twice"
    row = _row(said["late"], livez.seconds, growth, spent)
    print(_line(count, row), flush=True)
    return row


def _row(late: list[float], livez: list[float], growth: int, spent: Row) -> Row:
    cuts = statistics.quantiles(late, n=100, method="inclusive")
    return {
        "p50_ms": 1e3 * cuts[49], "p95_ms": 1e3 * cuts[94], "p99_ms": 1e3 * cuts[98], "words": len(late),
        "livez_p99_ms": 1e3 * statistics.quantiles(livez, n=100, method="inclusive")[98],
        "livez_max_ms": 1e3 * max(livez), "api_growth_mb": growth / 1e6,
        "redis_cpu_us": 1e6 * spent["cpu"] / len(late), "redis_bytes": spent["bytes"] / len(late),
    }  # fmt: skip


def _line(count: int, row: Row) -> str:
    return (
        f"{count:5} streams: step to client p50 {row['p50_ms']:.0f}, p95 {row['p95_ms']:.0f}, p99 {row['p99_ms']:.0f} "
        f"ms; /livez p99 {row['livez_p99_ms']:.0f}, max {row['livez_max_ms']:.0f} ms; "
        f"API +{row['api_growth_mb']:.0f} MB; "
        f"a word costs Redis {row['redis_cpu_us']:.0f} µs and {row['redis_bytes']:.0f} bytes"
    )


@contextmanager
def _api(client: redis.Redis, count: int) -> Iterator[tuple[str, psutil.Process]]:
    """One process of the API, its master aside."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="promptq-bench-") as folder:
        values = {
            "REDIS_URL": url_of(client), "ENGINE": "echo", "API_PORT": str(port), "DATA_DIR": folder,
            "API_PROCESSES": "1", "API_CONNECTIONS": str(count + 100), "LOG_LEVEL": "WARNING",
        }  # fmt: skip
        named = {f"PROMPTQ_{name}": value for name, value in values.items()}
        process = subprocess.Popen([sys.executable, "-m", "api"], env=child_environment(**named))
        try:
            wait_for(f"http://127.0.0.1:{port}")
            (child,) = psutil.Process(process.pid).children()
            yield f"http://127.0.0.1:{port}", child
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def _worker(client: redis.Redis, name: str, module: str, options: argparse.Namespace, **more: str) -> Iterator[Any]:
    values = {
        "REDIS_URL": url_of(client), "ENGINE": "echo", "WORKER_NAME": name, "SLOTS": str(options.slots),
        "ECHO_TOKENS_PER_SECOND": str(options.pace), "LOG_LEVEL": "WARNING",
    } | more  # fmt: skip
    named = {f"PROMPTQ_{key}": value for key, value in values.items()}
    process = subprocess.Popen([sys.executable, "-m", module], env=child_environment(**named))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _reader(url: str, ids: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The client, once all its streams are open."""
    host, port = url.removeprefix("http://").split(":")
    command = [sys.executable, "-m", "benchmarks.stream_client", host, port]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    with process.stdin as to:
        to.write("\n".join(ids))
    assert process.stdout.readline() == "ready\n"
    yield process
    process.wait(60)


class _Livez:
    """Asks /livez all the while, on connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/livez"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []

    def __enter__(self) -> _Livez:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            began = time.perf_counter()
            requests.get(self._url, timeout=30)
            self.seconds.append(time.perf_counter() - began)


def _server_counts(client: redis.Redis) -> Row:
    info: Any = client.info("stats", "cpu")
    return {
        "cpu": info["used_cpu_user"] + info["used_cpu_sys"],
        "bytes": info["total_net_input_bytes"] + info["total_net_output_bytes"],
    }


def _memory(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def _store(client: redis.Redis, engine: str) -> JobStore:
    return JobStore(client, CommonSettings(_env_file=None, redis_url=url_of(client), engine=engine))


def _submit(store: JobStore, requests: list[JobRequest]) -> list[str]:
    settings = store.settings
    news = [
        NewJob.create(request, settings.default_model, settings.catalogue.default.identity(settings.dtype))
        for request in requests
    ]
    store.submit_many(news)
    return [new.id for new in news]


def _checkpoints(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of the real model, of one worker with checkpoints and one without, in turn."""
    speeds: dict[str, list[float]] = {"2": [], "0": []}
    with ExitStack() as stack:
        client = stack.enter_context(serving())
        store = _store(client, "continuous")
        for number in range(options.rounds):
            for seconds in sorted(speeds, reverse=number % 2 == 0):
                speeds[seconds].append(_speed(store, seconds, number, options))
    pairs = [kept / plain for kept, plain in zip(speeds["2"], speeds["0"], strict=True)]
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"tokens/s every 2 s: {middle['2']:.1f}, none: {middle['0']:.1f}; ratio of pairs, median "
          f"{statistics.median(pairs):.3f}, from {min(pairs):.3f} to {max(pairs):.3f}")  # fmt: skip
    return {"tokens_per_second": speeds, "ratios": pairs}


def _speed(store: JobStore, seconds: str, number: int, options: argparse.Namespace) -> float:
    more = {"ENGINE": "continuous", "SLOTS": str(options.rows), "CHECKPOINT_SECONDS": seconds, "DRAFTS": "false"}
    with _worker(store.client, f"w{number}-{seconds}", "gpu_worker", options, **more):
        _ended(store, _submit(store, [_request(place, 4) for place in range(options.rows)]))
        began = time.perf_counter()
        jobs = _ended(store, _submit(store, [_request(place, options.words) for place in range(options.rows)]))
        took = time.perf_counter() - began
    return sum(job.result.completion_tokens for job in jobs if job.result) / took


def _request(place: int, tokens: int) -> JobRequest:
    return JobRequest(prompt=f"{place} {PROMPT}", max_tokens=tokens, cache=False)


def _ended(store: JobStore, ids: list[str]) -> list[Any]:
    while True:
        jobs = store.get_many(ids)
        if all(job and job.status.is_terminal for job in jobs):
            assert {job.status for job in jobs if job} == {Status.SUCCEEDED}
            return jobs
        time.sleep(0.02)


if __name__ == "__main__":
    main()
