"""`python -m tests.chaos.load polls|overload|soak`: how the service bears load, on echo workers. Prints JSON."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.chaos.run import START_SECONDS, _ready
from tests.chaos.stack import Stack
from tests.fakes import keys
from tests.processes import wait_until

POLLERS = 300
MIX = ("high", "default", "default", "low")


def polls(seconds: float) -> dict[str, Any]:
    """300 clients long-poll while 50 jobs a second are submitted; the API's quickness meanwhile."""
    wide = {"slots": 128, "echo_tokens_per_second": 10, "max_queue_jobs": 5000, "min_workers": 3, "lease_seconds": 15}

    def load(stack: Stack) -> dict[str, Any]:
        ids: Any = multiprocessing.Queue()
        closing = multiprocessing.Event()
        clients = multiprocessing.Process(target=_poll, args=(stack.url, ids, closing))
        clients.start()
        probes: list[float] = []
        prober = threading.Thread(target=_probe, args=(stack.url, closing, probes))
        prober.start()
        submits, open_polls = _submit_steadily(stack.url, 50, seconds, ids)
        closing.set()
        prober.join()
        clients.join()
        taken = [took for took, status in submits if status == 202]
        return {
            "submits": len(taken), "requests in progress": open_polls,
            "submit p50 ms": _ms(statistics.median(taken)), "submit max ms": _ms(max(taken)),
            "livez p50 ms": _ms(statistics.median(probes)), "livez max ms": _ms(max(probes)),
        }  # fmt: skip

    return _with_stack(load, **wide)


def overload(seconds: float) -> dict[str, Any]:
    """A burst, and a steady ten times of what one worker does; clients come back when they are told to.

    Ageing is as short beside the queue's length as it is with the defaults.
    """
    narrow = {
        "slots": 8, "echo_tokens_per_second": 20, "max_workers": 1, "min_workers": 1, "max_queue_jobs": 40,
        "ageing_seconds": 1,
    }  # fmt: skip
    return _with_stack(lambda stack: {"burst": _burst(stack, 200), "steady": _steady(stack, 80, seconds)}, **narrow)


def soak(jobs: int) -> dict[str, Any]:
    """Many short jobs through one worker: what every process and Redis hold, at a fifth of them and at the end."""
    quick = {
        "slots": 64, "echo_tokens_per_second": 0, "max_workers": 1, "min_workers": 1, "max_queue_jobs": 5000,
        "result_ttl_seconds": 30, "log_level": "WARNING", "lease_seconds": 15,
    }  # fmt: skip

    def load(stack: Stack) -> dict[str, Any]:
        began, base = time.monotonic(), _memory(stack)
        marks: dict[str, dict[str, float]] = {}
        for share, until in (("20%", jobs // 5), ("60%", jobs * 3 // 5), ("100%", jobs)):
            _push(stack, until - (marks[last]["ended"] if (last := list(marks)[-1] if marks else "") else 0))
            time.sleep(2)
            marks[share] = _memory(stack)
        rate = marks["100%"]["ended"] / (time.monotonic() - began)
        time.sleep(35)
        return {"before": base, **marks, "jobs per second": round(rate), "after the lifetimes": _memory(stack)}

    return _with_stack(load, **quick)


def _with_stack(load: Callable[[Stack], dict[str, Any]], **settings: Any) -> dict[str, Any]:
    stack = Stack(Path(tempfile.mkdtemp(prefix="promptq-load-")), **settings)
    stack.up()
    try:
        wait_until(lambda: _ready(stack), START_SECONDS, "the stack")
        return load(stack)
    finally:
        stack.down()


# Long polls.


def _poll(url: str, ids: Any, closing: Event) -> None:
    def one() -> None:
        with requests.Session() as session:
            while not closing.is_set():
                try:
                    job_id = ids.get(timeout=0.5)
                    session.get(f"{url}/v1/jobs/{job_id}?wait=30", timeout=40)
                except Exception:
                    continue

    with ThreadPoolExecutor(POLLERS) as pool:
        for _ in range(POLLERS):
            pool.submit(one)


def _probe(url: str, closing: Event, took: list[float]) -> None:
    with requests.Session() as session:
        while not closing.is_set():
            began = time.monotonic()
            session.get(f"{url}/livez", timeout=10)
            took.append(time.monotonic() - began)
            time.sleep(0.05)


def _submit_steadily(url: str, rate: float, seconds: float, ids: Any) -> tuple[list[tuple[float, int]], float]:
    body = {"prompt": " ".join(f"w{i}" for i in range(60)), "max_tokens": 60, "cache": False}
    took: list[tuple[float, int]] = []
    most = 0.0

    def one(session: requests.Session) -> None:
        began = time.monotonic()
        answer = session.post(f"{url}/v1/jobs", json=body, timeout=30)
        took.append((time.monotonic() - began, answer.status_code))
        if answer.status_code == 202:
            ids.put(answer.json()["id"])

    with ThreadPoolExecutor(16) as pool, requests.Session() as session:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            pool.submit(one, session)
            if number % 250 == 249:
                most = max(most, _in_progress(session, url))
    return took, most


def _in_progress(session: requests.Session, url: str) -> float:
    lines = session.get(f"{url}/metrics", timeout=10).text.splitlines()
    return next((float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith("promptq_http_requests_in_progress ")), 0.0)


# Overload.


def _burst(stack: Stack, jobs: int) -> dict[str, Any]:
    """So many clients at once; each comes back exactly when told, until it is admitted."""
    _push(stack, 60, "word " * 20)
    with ThreadPoolExecutor(jobs) as pool:
        told = list(pool.map(lambda _: _obedient(stack.url), range(jobs)))
    return _judge(told)


def _steady(stack: Stack, rate: float, seconds: float) -> dict[str, Any]:
    _push(stack, 40, "word " * 20)
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(2000) as pool:
        waits = []
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            waits.append(pool.submit(_obedient, stack.url, until + 30, MIX[number % len(MIX)]))
        told = [wait.result() for wait in waits]
    return _judge(told) | {name: _waited(told, name) for name in sorted(set(MIX))}


def _waited(told: list[dict[str, Any]], priority: str) -> str:
    """What the admitted jobs of one priority waited."""
    waits = [t["queue"] for t in told if t.get("queue") is not None and t["priority"] == priority]
    return f"{len(waits)} admitted, waited {statistics.median(waits):.2f} s (median), {max(waits):.2f} s at most"


def _obedient(url: str, until: float = float("inf"), priority: str = "default") -> dict[str, Any]:
    """Submit; when refused, come back after Retry-After. What it was told first, and how long it really took."""
    body = {"prompt": "word " * 20, "cache": False, "priority": priority}
    began, first, tries = time.monotonic(), None, 0
    while time.monotonic() < until:
        tries += 1
        answer = requests.post(f"{url}/v1/jobs", json=body, timeout=30)
        if answer.status_code == 202:
            admitted = time.monotonic() - began
            done = requests.get(f"{url}/v1/jobs/{answer.json()['id']}?wait=60", timeout=70).json()
            waited = done["timings"]["queue_seconds"]
            return {"first": first, "took": admitted, "tries": tries, "queue": waited, "priority": priority}
        told = int(answer.headers["Retry-After"])
        first = first or told
        time.sleep(max(0.0, min(told, until - time.monotonic())))
    return {"first": first, "took": None, "tries": tries}


def _judge(told: list[dict[str, Any]]) -> dict[str, Any]:
    refused = [t for t in told if t["first"] and t["took"] is not None]
    right = [t for t in refused if t["first"] / 2 <= t["took"] <= 2 * t["first"] + 1]
    return {
        "clients": len(told), "admitted at once": sum(t["first"] is None for t in told), "refused first": len(refused),
        "never admitted": sum(t["took"] is None for t in told),
        "Retry-After right within a factor of two": f"{len(right)} of {len(refused)}",
        "admitted at the second try": sum(t["tries"] == 2 for t in refused),
        "longest Retry-After": max((t["first"] for t in told if t["first"]), default=0),
    }  # fmt: skip


# Memory.


def _push(stack: Stack, jobs: int, prompt: str = "one two three") -> None:
    """Submit so many and wait for their ends."""
    with stack.client as client:
        target = _ended(client) + jobs

        def some(count: int) -> None:
            with requests.Session() as session:
                for _ in range(count):
                    while session.post(
                        f"{stack.url}/v1/jobs", json={"prompt": prompt, "cache": False}, timeout=30
                    ).status_code != 202:  # fmt: skip
                        time.sleep(0.2)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(some, [jobs // 8 + (i < jobs % 8) for i in range(8)]))
        wait_until(lambda: _ended(client) >= target, 600, "the jobs")


def _ended(client: Any) -> int:
    totals = client.hgetall(keys.totals())
    return sum(int(totals.get(name, 0)) for name in (b"succeeded", b"failed", b"cancelled", b"expired"))


def _memory(stack: Stack) -> dict[str, Any]:
    def resident(pids: list[int]) -> float:
        return round(sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20, 1)

    with stack.client as client:
        return {
            "ended": _ended(client), "api MiB": resident(stack.api_children()),
            "scaler MiB": resident([stack.processes["scaler"].pid]), "worker MiB": resident(list(stack.workers())),
            "redis keys": client.dbsize(), "redis MiB": round(client.info("memory")["used_memory"] / 2**20, 2),
        }  # fmt: skip


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.load", description=__doc__)
    parser.add_argument("what", choices=["polls", "overload", "soak"])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=100_000)
    given = parser.parse_args()
    kinds = {"polls": lambda: polls(given.seconds), "overload": lambda: overload(given.seconds)}
    print(json.dumps(kinds.get(given.what, lambda: soak(given.jobs))(), indent=2))
    sys.exit(0)
