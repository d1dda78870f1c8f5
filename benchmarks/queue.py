"""What a job costs the queue, ours beside others', on the same server in turn: `make bench-queue`.

Parts: `workers` (jobs per second of worker processes: ours, RQ's SimpleWorker, Celery with celery-batches, a bare
list), `depth` (submit, claim and finish through the store, with 0 to 1,000,000 jobs waiting), `latency` (an idle
worker, from the submit's reply to the claim), `memory` (bytes a job). Nothing is generated: the engine echoes at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from benchmarks.queue_peers import Bare, Celery, Ours, Peer, Rq, new_job
from benchmarks.queue_server import Counts, counts, serving, used_memory
from promptq.contract.job import Result, Status, from_iso
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import LEAN_OPTIONS
from promptq.queue.store import Claim, Ending, JobStore

POLL_SECONDS = 0.02
WARM_UP = 0.2
"""Share of the jobs before the clock starts: the workers begin one after the other."""
DEFAULTS = (
    "--stream-node-max-bytes", "4096", "--hash-max-listpack-value", "64", "--hash-max-listpack-entries", "512",
    "--zset-max-listpack-entries", "128",
)  # fmt: skip
"""Redis's own, where the embedded server is leaner."""
TEXT = "one two three four " * 5
Row = dict[str, float]


def main() -> None:
    """Run the parts that were asked for, print a table of each, and write all of it as JSON."""
    options = _options()
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "workers": workers, "depth": depths, "latency": latency, "memory": memory
    }  # fmt: skip
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.parts.split(","):
        print(f"\n{name}")
        report[name] = report.get(name, {}) | parts[name](options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(f"written to {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="workers,depth,latency,memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long one run of one queue lasts")
    parser.add_argument("--celery", metavar="PYTHON", help="an interpreter that has celery and celery-batches")
    parser.add_argument("--processes", default="1,2,4,8", help="worker processes, for `workers`")
    parser.add_argument("--depths", default="0,10000,1000000", help="jobs waiting, for `depth`")
    parser.add_argument("--samples", type=int, default=500, help="jobs, for `latency`")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/queue.json"))
    return parser.parse_args()


# Workers.


def workers(options: argparse.Namespace) -> dict[str, Any]:
    """Each queue in turn, with each number of processes."""
    report = {}
    for processes in map(int, options.processes.split(",")):
        peers = _peers(options)
        runs: dict[str, list[Row]] = {name: [] for name in peers}
        for _ in range(options.repeats):
            for name, (peer, rate) in peers.items():
                runs[name].append(_drain(peer, int(rate * options.seconds) + 100, processes))
        report[str(processes)] = runs
        print(_table(f"{processes} worker processes", runs))
    return report


def _peers(options: argparse.Namespace) -> dict[str, tuple[Peer, int]]:
    """By name, with about the jobs that each does in a second."""
    peers: dict[str, tuple[Peer, int]] = {
        "ours, 32": (Ours(32), 8000), "ours, 32, cached": (Ours(32, cache=True), 8000),
        "ours, 8": (Ours(8), 5000), "ours, 1": (Ours(1), 1500),
        "bare list, 32": (Bare(32), 20_000), "bare list, 1": (Bare(1), 2000),
        "RQ SimpleWorker": (Rq(), 300),
    }  # fmt: skip
    if options.celery:
        peers |= {
            "Celery batches, 32": (Celery(32, options.celery), 800),
            "Celery batches, 1": (Celery(1, options.celery), 500),
        }  # fmt: skip
    return peers


def _drain(peer: Peer, jobs: int, processes: int) -> Row:
    """Fill a new server, and let the workers empty it."""
    with serving() as client:
        peer.fill(client, jobs)
        started = [peer.work(client) for _ in range(processes)]
        try:
            first = _reach(peer, client, int(jobs * WARM_UP))
            last = _reach(peer, client, jobs)
        finally:
            for process in started:
                process.kill()
                process.wait()
    span = last[1].since(first[1])
    return span.per(last[0] - first[0]) | {"jobs_per_second": (last[0] - first[0]) / span.seconds}


def _reach(peer: Peer, client: redis.Redis, jobs: int) -> tuple[int, Counts]:
    deadline = time.monotonic() + 120
    while (done := peer.done(client)) < jobs:
        assert time.monotonic() < deadline, f"{peer} ended {done} of {jobs} jobs"
        time.sleep(POLL_SECONDS)
    return done, counts(client, time.perf_counter)


def _table(title: str, runs: dict[str, list[Row]]) -> str:
    middle = {name: _median(rows) for name, rows in runs.items()}
    lines = [
        f"\n{title}\n{'':20}{'jobs/s':>9}{'µs/job':>9}{'CPU µs':>8}{'reads':>7}{'cmds':>7}{'ours ÷ it':>11}"
        "  jobs/s, each run"
    ]
    for name, row in middle.items():
        ours = middle.get("ours, 1" if name.endswith(" 1") or name.startswith("RQ") else "ours, 32", row)
        each = " ".join(f"{one['jobs_per_second']:.0f}" for one in runs[name])
        lines.append(
            f"{name:20}{row['jobs_per_second']:9.0f}{row['us']:9.0f}{row['redis_cpu_us']:8.0f}{row['round_trips']:7.2f}"
            f"{row['commands']:7.1f}{ours['jobs_per_second'] / row['jobs_per_second']:11.2f}  {each}"
        )
    return "\n".join(lines)


def _median(rows: Sequence[Row]) -> Row:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


# Depth.


def depths(options: argparse.Namespace) -> dict[str, Any]:
    """The same jobs through the store, on servers with ever more that wait; all servers in turn."""
    report: dict[str, Any] = {}
    waiting = [int(depth) for depth in options.depths.split(",")]
    for size in (32, 8, 1):
        runs: dict[int, list[dict[str, Row]]] = {depth: [] for depth in waiting}
        report[str(size)] = runs
    with ExitStack() as stack:
        # A rewrite of a file grown by the filling would be measured instead: a fork, and a copy of each page written.
        servers = {depth: stack.enter_context(serving("--auto-aof-rewrite-percentage", "0")) for depth in waiting}
        for depth, client in servers.items():
            settle(client, depth)
        for turn in range(options.repeats):
            for size in (32, 8, 1):
                for depth in waiting[::-1] if turn % 2 else waiting:
                    report[str(size)][depth].append(_through(servers[depth], size, 1600 if size > 1 else 400))
    for batch, runs in report.items():
        print(_depth_table(int(batch), runs))
    return report


def settle(client: redis.Redis, depth: int) -> None:
    """Have so many jobs wait, each of which may be joined, as those that are measured; and as in a queue long so deep.

    A table that grew moves its entries bit by bit, with each access and in idle moments: not while we measure. And one
    turn goes unmeasured: scripts, buffers, and the allocator's stock.
    """
    Ours(32, cache=True).fill(client, depth)
    _through(client, 32, 1600)
    deadline = time.monotonic() + 60
    while (info := client.info("memory")).get("mem_overhead_db_hashtable_rehashing"):
        assert time.monotonic() < deadline, info
        time.sleep(0.1)


def _through(client: redis.Redis, size: int, jobs: int) -> dict[str, Row]:
    """So many jobs submitted, claimed and finished, so many at a time. What waits stays as many."""
    rows = {name: _measured(client, jobs, act) for name, act in acts(client, size, jobs).items()}
    return rows | {"all": {name: sum(row[name] for row in rows.values()) for name in rows["submit"]}}


def acts(
    client: redis.Redis, size: int, jobs: int, cache: bool = True, owners: Sequence[str] = ("",)
) -> dict[str, Callable[[], Any]]:
    """What submits, claims and finishes so many jobs, so many at a time: each to be called once, in this order.

    Args:
        owners: the jobs are theirs in turn.
    """
    store = JobStore(client, WorkerSettings(_env_file=None, engine="echo", max_queue_jobs=10**9))
    news = [replace(new_job(time.time_ns() + i, cache), owner=owners[i % len(owners)]) for i in range(jobs)]
    starts, claims = range(0, jobs, size), list[list[Claim]]()

    def finish() -> None:
        assert sum(map(len, claims)) == jobs
        for some in claims:
            store.finish("bench", [_ending(claim) for claim in some])

    return {
        "submit": lambda: [store.submit_many(news[i : i + size]) for i in starts],
        "claim": lambda: claims.extend(store.claim("bench", size) for _ in starts),
        "finish": finish,
    }


def _measured(client: redis.Redis, jobs: int, act: Callable[[], Any]) -> Row:
    before = counts(client, time.perf_counter)
    act()
    return counts(client, time.perf_counter).since(before).per(jobs)


def _ending(claim: Claim) -> Ending:
    return Ending(claim, Status.SUCCEEDED, Result(TEXT, "stop", "echo", 30, 20, 0.1, 0.1, 0.2, 32))


def _depth_table(size: int, runs: dict[int, list[dict[str, Row]]]) -> str:
    """Medians; and of all together the lower quartile too, as a neighbour on the machine can only add."""
    lines = [f"\n{size} at a time: µs of Redis's processor a job\n{'waiting':>10}{'submit':>9}{'claim':>9}{'finish':>9}"
             f"{'all':>9}{'quarter':>9}{'÷ first':>9}{'wall µs':>9}{'reads':>7}{'cmds':>7}"]  # fmt: skip
    base = 0.0
    for depth, rows in runs.items():
        cpu = {part: statistics.median(row[part]["redis_cpu_us"] for row in rows) for part in rows[0]}
        whole = _median([row["all"] for row in rows])
        base = base or cpu["all"]
        quarter = sorted(row["all"]["redis_cpu_us"] for row in rows)[len(rows) // 4]
        lines.append(
            f"{depth:10}{cpu['submit']:9.1f}{cpu['claim']:9.1f}{cpu['finish']:9.1f}{cpu['all']:9.1f}{quarter:9.1f}"
            f"{cpu['all'] / base:9.2f}{whole['us']:9.0f}{whole['round_trips']:7.2f}{whole['commands']:7.1f}"
        )
    return "\n".join(lines)


# Latency.


def latency(options: argparse.Namespace) -> dict[str, Any]:
    """One job at a time for a worker that waits: how long until it claims, and until the result is there."""
    with serving() as client:
        store = JobStore(client, WorkerSettings(_env_file=None, engine="echo"))
        process = Ours(32).work(client)
        try:
            samples = [_wait(client, store, number) for number in range(options.samples + 20)][20:]
        finally:
            process.kill()
            process.wait()
    report = {}
    for name, values in zip(("claim", "result"), zip(*samples, strict=True), strict=True):
        cuts = statistics.quantiles(values, n=100)
        report[name] = {"p50_ms": cuts[49], "p90_ms": cuts[89], "p99_ms": cuts[98], "max_ms": max(values)}
        print(f"{name:8}" + "".join(f"{kind:>8} {value:7.2f}" for kind, value in report[name].items()))
    return report


def _wait(client: redis.Redis, store: JobStore, number: int) -> tuple[float, float]:
    """Milliseconds from the submit's reply to the sending of the claim, and to that of the result."""
    job = store.submit(new_job(number, cache=False)).job
    replied = time.time()
    while not store.get(job.id).status.is_terminal:
        time.sleep(0.005)
    stamps: Any = client.hmget(store.keys.job(job.id), "started_at", "ended_at")
    time.sleep(0.005 + number % 7 / 1000)  # no rhythm with the worker's own pauses
    claimed, ended = (1000 * ((from_iso(stamp.decode()) or 0.0) - replied) for stamp in stamps)
    return claimed, ended


# Memory.


def memory(_options: argparse.Namespace) -> dict[str, Any]:
    """Bytes of a queued and of a finished job, with a cached text and without, on the lean and on a default server."""
    report: dict[str, Any] = {}
    for server, settings in (("lean", LEAN_OPTIONS), ("Redis's defaults", DEFAULTS)):
        for cache in (True, False):
            with serving(*settings) as client:
                report[f"{server}, {'cached' if cache else 'uncached'}"] = _bytes(client, 10_000, cache)
    for name, row in report.items():
        print(f"{name:28}" + "".join(f"{kind:>10} {value:6.0f}" for kind, value in row.items()))
    return report


def _bytes(client: redis.Redis, jobs: int, cache: bool) -> Row:
    store, ours = JobStore(client, WorkerSettings(_env_file=None, engine="echo")), Ours(32, cache)
    ours.fill(client, 1)  # the scripts
    store.finish("bench", [_ending(claim) for claim in store.claim("bench", 1)])
    before = used_memory(client)
    ours.fill(client, jobs)
    queued = used_memory(client) - before
    while claims := store.claim("bench", 100):
        store.finish("bench", [_ending(claim) for claim in claims])
    return {"queued": queued / jobs, "finished": (used_memory(client) - before) / jobs}


if __name__ == "__main__":
    main()
