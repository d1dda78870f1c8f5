"""The real scaler through a burst: jobs, workers wanted and there, decisions. `python experiments/scaler_burst.py`"""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from contextlib import suppress
from itertools import pairwise
from typing import Any

from common import mean, progress, save
from matplotlib.figure import Figure
from serving import REPEATS, Done, WorkerLoop, offer, scale, service

LINE = re.compile(r"^(promptq_\w+)(?:\{(.*)\})? (\S+)$", re.M)
CALM, BURST = 0.2, 3.0
MOST_WORKERS = 4


def main() -> None:
    """Calm, a burst, calm again."""
    size, rows = scale(), []
    for seed in progress(range(REPEATS), "scaler_burst"):
        with _stack(size.engine) as running:
            samples: list[dict[str, float]] = []
            stop = threading.Event()
            watcher = threading.Thread(target=_watch, args=(running, samples, stop))
            watcher.start()
            ended = [_offer(running, share * size.rate, size.seconds * 2, seed) for share in (CALM, BURST, CALM)]
            stop.set()
            watcher.join()
        waits = [[one.job["timings"]["queue_seconds"] for one in part if one.job] for part in ended]
        rows.append({"seed": seed, "samples": samples, "mean_waits": [mean(values) for values in waits]})
    save("scaler_burst", _draw(rows[0]["samples"]), size.settings, rows, _found(rows))


def _stack(engine: str) -> Any:
    limits = {"max_workers": MOST_WORKERS, "slots": 4}
    return service(scaler=True, engine=engine, **limits)


def _offer(running: WorkerLoop, rate: float, seconds: float, seed: int) -> list[Done]:
    return offer(running, rate, seconds, seed)


def _watch(running: WorkerLoop, samples: list[dict[str, float]], stop: threading.Event) -> None:
    begun = time.monotonic()
    while not stop.wait(0.25):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{running.scaler_port}/metrics") as answer:
            samples.append({"at": time.monotonic() - begun, **_read(answer.read().decode())})


def _read(text: str) -> dict[str, float]:
    values = [(name, labels or "", float(value)) for name, labels, value in LINE.findall(text)]

    def total(metric: str, *without: str) -> float:
        return sum(value for name, labels, value in values if name == metric and not any(w in labels for w in without))

    return {
        "jobs": total("promptq_queue_jobs", "dead"), "wanted": total("promptq_workers_wanted"),
        "there": total("promptq_workers", "draining", "starting"),
        "decisions": total("promptq_scaler_decisions_total", 'action="hold"'),
    }  # fmt: skip


def _draw(samples: list[dict[str, float]]) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    depth, workers = figure.subplots(2, 1, sharex=True)
    at = [sample["at"] for sample in samples]
    depth.fill_between(at, [sample["jobs"] for sample in samples], step="post", alpha=0.4)
    depth.set(ylabel="jobs queued or running", title="Calm, a burst, calm again")
    for name, label in (("wanted", "wanted"), ("there", "registered")):
        workers.step(at, [sample[name] for sample in samples], where="post", label=label)
    for before, after in pairwise(samples):
        if after["decisions"] > before["decisions"]:
            workers.axvline(after["at"], color="grey", linewidth=0.6, alpha=0.6)
    workers.set(xlabel="seconds; a grey line is a decision to change", ylabel="workers")
    workers.legend()
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    calm, burst, after = (mean([row["mean_waits"][part] for row in rows]) for part in range(3))
    most = max(sample["there"] for row in rows for sample in row["samples"])
    return (
        f"The burst takes the fleet to {most:.0f} workers; the mean wait is {calm:.2f} s before, {burst:.2f} s in it, "
        f"{after:.2f} s after it."
    )


if __name__ == "__main__":
    main()
