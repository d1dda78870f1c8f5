"""What a run adds to Locust's own report: with `--csv PREFIX`, PREFIX_jobs.json and PREFIX_jobs.png and .svg."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locust import events


@dataclass(slots=True)
class Run:
    """The jobs of one run. Times are seconds since its start, durations seconds."""

    started: float = field(default_factory=time.monotonic)
    ended_at: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    queue: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    submits: Counter[str] = field(default_factory=Counter)


_run = Run()


@events.test_start.add_listener
def begin(**_: Any) -> None:
    """Forget an earlier run of this page."""
    global _run
    _run = Run()


@events.request.add_listener
def note(request_type: str, name: str, response_time: float, exception: Any, **_: Any) -> None:
    """Keep what Locust's rows do not tell: when each job ended, and what became of each submit."""
    if name == "submit":
        _run.submits["429" if "429" in str(exception) else "failed" if exception else "accepted"] += 1
    elif (request_type, name) == ("JOB", "e2e"):
        _run.statuses[str(exception) if exception else "succeeded"] += 1
        if not exception:
            _run.ended_at.append(time.monotonic() - _run.started)
            _run.e2e.append(response_time / 1000)
    elif (request_type, name) == ("JOB", "queue"):
        _run.queue.append(response_time / 1000)


@events.quitting.add_listener
def write(environment: Any, **_: Any) -> None:
    """After a headless run with `--csv`."""
    options = environment.parsed_options
    if not (options.csv_prefix and options.headless):
        return
    summary = summarize(_run, time.monotonic() - _run.started, options.target_seconds)
    settings = {name: getattr(options, name) for name in ("seed", "max_tokens", "prompt_words", "offered_rate")}
    text = json.dumps({"summary": summary, "settings": settings, "e2e": _run.e2e, "queue": _run.queue}, indent=1)
    Path(f"{options.csv_prefix}_jobs.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))
    if _run.e2e:
        _draw(_run, options.target_seconds, options.csv_prefix)


def summarize(run: Run, seconds: float, target_seconds: float) -> dict[str, Any]:
    """Rates per second, quantiles, goodput, refusals."""
    good = sum(duration <= target_seconds for duration in run.e2e)
    return {
        "seconds": round(seconds, 1),
        "offered_per_second": round(sum(run.submits.values()) / seconds, 3),
        "achieved_per_second": round(len(run.e2e) / seconds, 3),
        "goodput_per_second": round(good / seconds, 3),
        "target_seconds": target_seconds,
        "e2e_seconds": _quantiles(run.e2e),
        "queue_seconds": _quantiles(run.queue),
        "submits": dict(run.submits),
        "ends": dict(run.statuses),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{q * 100:.0f}": round(ordered[round(q * last)], 4) for q in (0.5, 0.95, 0.99)} if ordered else {}


def _draw(run: Run, target_seconds: float, prefix: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    scatter, spread = figure.subplots(2)
    scatter.plot(run.ended_at, run.e2e, ".", markersize=3, alpha=0.5)
    scatter.axhline(target_seconds, color="tab:red", linestyle="--", label=f"target {target_seconds:g} s")
    scatter.set(xlabel="seconds since the start", ylabel="job time, s", title="Each job, when it ended")
    scatter.legend()
    for label, values in (("end to end", run.e2e), ("in queue", run.queue)):
        ordered = sorted(values)
        spread.step(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], where="post", label=label)
    spread.set(xlabel="seconds", ylabel="share of jobs", title="Job time and time in queue", ylim=(0, 1))
    spread.legend()
    for kind in ("png", "svg"):
        figure.savefig(f"{prefix}_jobs.{kind}", dpi=110)
