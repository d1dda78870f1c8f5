"""The scaler's rules, a plot each: what comes, what runs, and the workers. `python experiments/scaler_rules.py`"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import save
from matplotlib.figure import Figure
from sim_model import DECIDE_SECONDS, SERVICE_SECONDS, SLOTS, STEP_SECONDS, SimulatedFleet
from sim_policies import load_of
from sim_traces import Trace

from scaler.load import Limits
from scaler.policy import History, decide

LARGEST = 50
START_SECONDS = 15.0


def main() -> None:
    """Simulate, draw, save."""
    rows = {name: _run(trace) for name, trace in _traces().items()}
    found = "; ".join(f"{name}: {', '.join(dict.fromkeys(row['reasons']))}" for name, row in rows.items())
    save("scaler_rules", _draw(rows), {"start_seconds": START_SECONDS, "seed": 1}, list(rows.values()), found)


def _traces() -> dict[str, Trace]:
    at = np.arange(400)
    batch = np.full(400, 0.2)
    batch[[100, 250]] = 6.0, 1.2
    return {
        "forecast: a slope is met ahead once slopes have come true": 0.1 + 0.6 * np.clip((at - 100) / 200, 0, 1),
        "forecast: arrivals rise beyond chance, and fall": np.where((at >= 100) & (at < 220), 0.7, 0.15),
        "backlog: only what would still wait": batch,
        "returning: a surge that was seen to come twice is met": np.where(at % 130 < 40, 0.7, 0.1),
    }


def _run(trace: Trace) -> dict[str, Any]:
    fleet, history = SimulatedFleet(LARGEST, 1, START_SECONDS, keeps_progress=True), History()
    limits = Limits(1, LARGEST, SLOTS)
    seen: dict[str, list[Any]] = {"at": [], "jobs": [], "ready": [], "there": [], "reasons": []}
    for number in range(round(len(trace) / STEP_SECONDS)):
        now = number * STEP_SECONDS
        fleet.step(now, trace[int(now)] * LARGEST * SLOTS / SERVICE_SECONDS)
        if now % DECIDE_SECONDS:
            continue
        sight = fleet.sight(now)
        decision = decide(load_of(sight), history, limits, now)
        history = decision.history
        fleet.obey(decision.workers, now)
        values = (now, sight.jobs / SLOTS, sight.workers - sight.starting, sight.workers)
        for name, value in zip(("at", "jobs", "ready", "there"), values, strict=True):
            seen[name].append(value)
        if decision.workers > sight.workers:
            seen["reasons"].append(decision.reason.value)
    return seen


def _draw(rows: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    for axis, (name, row) in zip(figure.subplots(2, 2).flat, rows.items(), strict=True):
        axis.fill_between(row["at"], row["jobs"], alpha=0.3, label="jobs / slots of a worker")
        axis.step(row["at"], row["there"], where="post", linestyle=":", label="workers, those that start included")
        axis.step(row["at"], row["ready"], where="post", label="workers that can claim")
        axis.set(title=name, xlabel="seconds", ylim=(0, LARGEST + 2))
        axis.grid(alpha=0.3)
    figure.axes[0].legend(loc="upper left")
    figure.suptitle(f"{LARGEST} workers at most, which take {START_SECONDS:.0f} s to start")
    return figure


if __name__ == "__main__":
    main()
