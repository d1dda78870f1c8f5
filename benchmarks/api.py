"""The API's submit and poll beside a bare Flask route, under the same gunicorn settings: `make bench-api`.

Needs wrk (Debian's package `wrk`). Servers take turns; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
import requests

from benchmarks.queue_server import counts, serving, url_of
from promptq.contract.environment import child_environment
from promptq.contract.settings import ApiSettings
from promptq.queue.embedded import free_port

SCRIPT = Path(__file__).with_name("api_load.lua")
Row = dict[str, float]


def main() -> None:
    """Run all in turn, print a table, and write it as JSON."""
    options = _options()
    runs: dict[str, list[Row]] = {"bare Flask": [], "submit": [], "poll": [], "batch of 100": []}
    with ExitStack() as stack:
        client = stack.enter_context(serving())
        bare = stack.enter_context(_bare(options))
        ours = stack.enter_context(_ours(options, client))
        job = requests.post(f"{ours}/v1/jobs", json={"prompt": "x"}, timeout=10).json()["id"]
        for number in range(options.repeats):
            runs["bare Flask"].append(_wrk(bare, "/v1/jobs", options, number))
            runs["submit"].append(_counted(client, ours, "/v1/jobs", options, number))
            runs["poll"].append(_counted(client, ours, f"/v1/jobs/{job}", options, number))
            runs["batch of 100"].append(_batches(ours, options, number))
    print(_table(runs))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"options": vars(options), "runs": runs}, indent=1, default=str) + "\n")
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--processes", type=int, default=ApiSettings(_env_file=None).api_processes)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/api.json"))
    return parser.parse_args()


@contextmanager
def _bare(options: argparse.Namespace) -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(options.processes), "--worker-connections", "1000",
        "--keep-alive", "5", "-b", f"127.0.0.1:{port}", "--log-level", "error", "benchmarks.bare_app:app",
    ]  # fmt: skip
    with _running(command, {}, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def _ours(options: argparse.Namespace, client: redis.Redis) -> Iterator[str]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="promptq-bench-") as folder:
        values = {
            "REDIS_URL": url_of(client), "ENGINE": "echo", "API_PORT": str(port), "DATA_DIR": folder,
            "API_PROCESSES": str(options.processes), "MAX_QUEUE_JOBS": "100000000", "LOG_LEVEL": "WARNING",
        }  # fmt: skip
        named = {f"PROMPTQ_{name}": value for name, value in values.items()}
        with _running([sys.executable, "-m", "api"], named, f"http://127.0.0.1:{port}") as url:
            yield url


@contextmanager
def _running(command: list[str], values: dict[str, str], url: str) -> Iterator[str]:
    process = subprocess.Popen(command, env=child_environment(**values))
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str) -> None:
    """Until a server answers there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            requests.get(url, timeout=5)
            return
        except requests.RequestException:
            time.sleep(0.05)
    raise TimeoutError(f"{url} does not answer")


def _wrk(url: str, path: str, options: argparse.Namespace, number: int) -> Row:
    """Requests per second, as wrk counts them: POST for the list of jobs, GET for one job."""
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--latency", "-s", str(SCRIPT), url]
    environment = os.environ | {"ROUND": str(number), "JOB_PATH": "" if path == "/v1/jobs" else path}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    row: Row = json.loads(done.stderr.splitlines()[-1])
    assert row["bad"] == 0, f"{row['bad']} requests went wrong"
    return row | {"per_second": row["requests"] / row["seconds"]}


def _counted(client: redis.Redis, url: str, path: str, options: argparse.Namespace, number: int) -> Row:
    before = counts(client, time.perf_counter)
    row = _wrk(url, path, options, number)
    return row | counts(client, time.perf_counter).since(before).per(row["requests"])


def _batches(url: str, options: argparse.Namespace, number: int) -> Row:
    """Jobs per second of one client that sends batches."""
    with requests.Session() as session:
        until, sent, began = time.monotonic() + options.seconds, 0, time.monotonic()
        while time.monotonic() < until:
            body = {"jobs": [{"prompt": f"{'x' * 280} {number} {sent + i}"} for i in range(100)]}
            answer = session.post(f"{url}/v1/jobs:batch", json=body, timeout=30).json()
            assert answer["refused"] == 0
            sent += 100
    return {"requests": sent, "per_second": sent / (time.monotonic() - began)}


def _table(runs: dict[str, list[Row]]) -> str:
    bare = statistics.median(row["per_second"] for row in runs["bare Flask"])
    lines = [f"{'':14}{'per second':>11}{'÷ bare':>8}{'p50 ms':>8}{'p99 ms':>8}{'reads':>7}{'CPU µs':>8}  each run"]
    for name, rows in runs.items():
        middle: dict[str, Any] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        cells = [f"{middle[key]:8.{digits}f}" if key in middle else " " * 8 for key, digits in
                 (("p50_ms", 1), ("p99_ms", 1), ("round_trips", 2), ("redis_cpu_us", 0))]  # fmt: skip
        each = " ".join(f"{row['per_second']:.0f}" for row in rows)
        lines.append(f"{name:14}{middle['per_second']:11.0f}{middle['per_second'] / bare:8.2f}{''.join(cells)}  {each}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
