"""The real scaler through a burst, with its policy and with our first one in turns: waits, worker-seconds, and whether
the wait that a queued job is told comes true. `python experiments/scaler_burst.py`"""

from __future__ import annotations

import argparse
import random
import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from common import ROOT, mean, progress, quantile, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from serving import WAIT_SECONDS, WORDS, WorkerLoop, fresh, service

LINE = re.compile(r"^(promptq_\w+)(?:\{(.*)\})? (\S+)$", re.M)
SCALERS = {"new": ("-m", "scaler"), "old": (str(ROOT / "experiments" / "first_policy.py"),)}
TURNS = ("new", "old", "old", "new", "new", "old")
SLOTS = 4
SAMPLE_SECONDS = 0.25
LOOK_SECONDS = 0.25
"""After its submit a job is looked at once, for what it is told while it waits."""
CALIBRATION_JOBS = 200
ENDED = ("succeeded", "failed", "cancelled", "expired")
Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """One experiment.

    Attributes:
        rate: jobs a second that one worker can just about do; 0: not known yet.
        seconds: of calm, burst and calm; `shares`: of the rate, in each.
        pace: words a second and row of the echo engine; `start_seconds`: what its start takes.
        side_by_side: both policies at the same time, each with a service of its own.
        name: of the files written, after each repeat.
    """

    engine: str
    rate: float
    seconds: tuple[float, float, float]
    shares: tuple[float, float, float]
    max_workers: int
    pace: float
    start_seconds: float
    side_by_side: bool
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Of the service."""
        echo = {"echo_tokens_per_second": self.pace, "echo_start_seconds": self.start_seconds}
        return {"engine": self.engine, "slots": SLOTS, "max_workers": self.max_workers, "worker_threads": 1, **echo}

    def arrivals(self, dice: random.Random) -> Iterator[float]:
        """When jobs are due: Poisson, at each part's rate."""
        begun = 0.0
        for seconds, share in zip(self.seconds, self.shares, strict=True):
            due = begun + dice.expovariate(share * self.rate)
            while due < begun + seconds:
                yield due
                due += dice.expovariate(share * self.rate)
            begun += seconds


def main() -> None:
    """Three repeats with each policy, the same arrivals for both of a repeat."""
    plan = _plan()
    plan = plan if plan.rate else replace(plan, rate=_measured_rate(plan))
    runs: list[Run] = []
    rounds = [TURNS[at : at + 2] for at in range(0, len(TURNS), 2)]
    for seed, names in progress(list(enumerate(rounds)), "scaler_burst"):
        with ThreadPoolExecutor(2 if plan.side_by_side else 1) as pool:
            runs += pool.map(lambda name, seed=seed: _run(plan, name, seed), names)
        save(plan.name, _draw(runs[:2]), asdict(plan), runs, _found(runs))


def _plan() -> Plan:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("echo", "continuous"), default="echo")
    parser.add_argument("--rate", type=float, help="jobs a second that one worker can do; else it is measured first")
    parser.add_argument("--seconds", type=float, nargs=3, default=(6.0, 9.0, 6.0), help="of calm, burst and calm")
    parser.add_argument("--shares", type=float, nargs=3, default=(0.2, 3.0, 0.2), help="of the rate, in each")
    parser.add_argument("--max-workers", type=int, default=4)
    parser.add_argument("--pace", type=float, default=20.0, help="words a second of the echo engine, per row")
    parser.add_argument("--start-seconds", type=float, default=0.0, help="what the echo engine's start takes")
    parser.add_argument("--side-by-side", action="store_true", help="both policies at the same time")
    parser.add_argument("--name", default="scaler_burst", help="of the files written")
    given = vars(parser.parse_args())
    rate = given.pop("rate") or (SLOTS * given["pace"] / WORDS if given["engine"] == "echo" else 0.0)
    return Plan(rate=rate, seconds=tuple(given.pop("seconds")), shares=tuple(given.pop("shares")), **given)


def _measured_rate(plan: Plan) -> float:
    """Jobs a second that one worker ends while more than it has slots wait, over the later half of them."""
    dice = random.Random(0)
    with service(**plan.settings) as running:
        ids = [running.submit(fresh(dice, number))["id"] for number in range(CALIBRATION_JOBS)]
        jobs = [running.get(f"/v1/jobs/{job_id}?wait={WAIT_SECONDS}") for job_id in ids]
    ends = sorted(datetime.fromisoformat(job["finished_at"]).timestamp() for job in jobs)
    later = ends[len(ends) // 2 :]
    return round((len(later) - 1) / (later[-1] - later[0]), 2)


def _run(plan: Plan, name: str, seed: int) -> Run:
    with service(scaler=SCALERS[name], **plan.settings) as running:
        samples: list[dict[str, float]] = []
        begun, stop = time.monotonic(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(running, begun, samples, stop))
        watcher.start()
        jobs = _offer(running, plan, seed, begun)
        stop.wait(begun + sum(plan.seconds) - time.monotonic())
        stop.set()
        watcher.join()
    return {"policy": name, "seed": seed, **_summary(plan, jobs, samples), "jobs": jobs, "samples": samples}


def _offer(running: WorkerLoop, plan: Plan, seed: int, begun: float) -> list[dict[str, Any]]:
    """Submit each job when it is due, and wait for all ends."""
    dice = random.Random(seed)
    jobs: list[dict[str, Any]] = []
    threads: list[threading.Thread] = []
    for number, due in enumerate(list(plan.arrivals(dice))):
        time.sleep(max(0.0, begun + due - time.monotonic()))
        threads.append(threading.Thread(target=_one, args=(running, due, fresh(dice, number), jobs)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sorted(jobs, key=lambda job: job["due"])


def _one(running: WorkerLoop, due: float, body: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
    """Submit, look once at what the job is told, wait for its end. What came true counts from that look. Where one of
    the first two gets no answer, the job is left out."""
    path = f"/v1/jobs/{running.submit(body)['id']}"
    time.sleep(LOOK_SECONDS)
    looked, seen = time.time(), running.get(path)
    job = seen
    while job["status"] not in ENDED:
        with suppress(OSError):
            job = running.get(f"{path}?wait={WAIT_SECONDS}")
    wait = job["timings"]["queue_seconds"]
    came = datetime.fromisoformat(job["created_at"]).timestamp() + wait - looked
    expected = (seen["waiting"] or {}).get("expected_seconds")
    jobs.append({
        "due": due, "status": job["status"], "wait": wait, "moves": job["timings"]["moves"],
        "was_queued": seen["status"] == "queued", "expected": expected, "came": came, "waiting": seen["waiting"],
    })  # fmt: skip


def _watch(running: WorkerLoop, begun: float, samples: list[dict[str, float]], stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_SECONDS):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{running.scaler_port}/metrics") as answer:
            samples.append({"at": time.monotonic() - begun, **_read(answer.read().decode())})


def _read(text: str) -> dict[str, float]:
    values = [(name, labels or "", float(value)) for name, labels, value in LINE.findall(text)]

    def total(metric: str, *without: str) -> float:
        return sum(value for name, labels, value in values if name == metric and not any(w in labels for w in without))

    return {
        "jobs": total("promptq_queue_jobs", "dead"), "wanted": total("promptq_workers_wanted"),
        "there": total("promptq_workers", "draining", "starting"), "processes": total("promptq_workers"),
    }  # fmt: skip


def _summary(plan: Plan, jobs: Sequence[dict[str, Any]], samples: Sequence[dict[str, float]]) -> Run:
    calm, until = plan.seconds[0], plan.seconds[0] + plan.seconds[1]
    parts = {"all": jobs, "burst": [job for job in jobs if calm <= job["due"] < until]}
    waits = {name: _spread([job["wait"] for job in part]) for name, part in parts.items()}
    within = [sample for sample in samples if sample["at"] < sum(plan.seconds)]
    steps = list(pairwise(within))
    return {
        "waits": waits,
        "worker_seconds": sum((after["at"] - before["at"]) * before["processes"] for before, after in steps),
        "starts": sum(max(0, after["processes"] - before["processes"]) for before, after in steps),
        "told": _told(jobs), "failed": sum(job["status"] != "succeeded" for job in jobs),
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"jobs": len(values), "mean": mean(values), "p50": quantile(values, 0.5), "p95": quantile(values, 0.95)}


def _told(jobs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the jobs that waited when they were looked at: how many were told how long, and for how many it came true
    within a factor of two; `allowed`: the same, with a second either way where it was less than one."""
    waited = [job for job in jobs if job["was_queued"]]
    told = [(job["expected"], job["came"]) for job in waited if job["expected"] is not None]
    exact = [came / 2 <= expected <= came * 2 for expected, came in told]
    allowed = [right or (came < 1 >= abs(came - expected)) for right, (expected, came) in zip(exact, told, strict=True)]
    return {"waited": len(waited), "told": len(told), "exact": mean(exact), "allowed": mean(allowed)}


def _draw(runs: Sequence[Run]) -> Figure:
    figure = Figure(figsize=(10, 8), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for at, run in enumerate(sorted(runs, key=lambda run: run["policy"], reverse=True)):
        _draw_run(axes[2 * at], axes[2 * at + 1], run)
    most = max(sample["jobs"] for run in runs for sample in run["samples"])
    for jobs in axes[::2]:
        jobs.set_ylim(0, 1.05 * most or 1)
    axes[-1].set(xlabel="seconds")
    return figure


def _draw_run(jobs: Axes, workers: Axes, run: Run) -> None:
    at = [sample["at"] for sample in run["samples"]]
    jobs.fill_between(at, [sample["jobs"] for sample in run["samples"]], step="post", alpha=0.4)
    jobs.set(ylabel="queued, running", title=f"{run['policy']} policy")
    for name, label in (("wanted", "wanted"), ("there", "registered")):
        workers.step(at, [sample[name] for sample in run["samples"]], where="post", label=label)
    workers.set(ylabel="workers", ylim=(0, None))
    workers.legend(loc="upper left")


def _found(runs: Sequence[Run]) -> str:
    return "; ".join(f"{name}: {_of([run for run in runs if run['policy'] == name])}" for name in SCALERS)


def _of(runs: Sequence[Run]) -> str:
    p50, p95 = ([run["waits"]["burst"][name] for run in runs] for name in ("p50", "p95"))
    told = mean([run["told"]["allowed"] for run in runs])
    return (
        f"p50 {mean(p50):.1f} s and p95 {mean(p95):.1f} s of wait in the burst, "
        f"{mean([run['worker_seconds'] for run in runs]):.0f} worker-seconds, {100 * told:.0f} % told right"
    )


if __name__ == "__main__":
    main()
