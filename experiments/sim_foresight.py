"""What foresight is worth: a clairvoyant that knows the arrivals of the next H seconds only, in the model of its bound.

    python experiments/sim_foresight.py [--short] [--starts 10 60] [--traces NAME …] [--kept]

At each step it knows the queue, what runs, which workers come, and the arrivals of the next H seconds; for those after
them it takes the mean of the last ones to go on. It solves `sim_plan.Plan`, does the first step, and goes on. The wait
that is allowed is the p95 wait of our policy, and each job that misses it costs a price. Of all prices, and of all
lengths of the past that the mean is of, those are taken, for each trace after the fact, with which 5 % of the jobs are
late for the fewest worker-hours, interpolated between runs. So it is better than anybody could be who has to choose
them before; and it stays a guess, so that somebody with a better one may do better yet.

Beside it: our policy, the bound (`sim_bound`: it knows everything), and the same planner without foresight in the
simulation that ours is run in (`sim_planner`). What is done is kept by its wait; after a change of our policy only what
has another wait is run again.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from common import OUT, progress, save
from matplotlib.figure import Figure
from scaler_sim import OURS, least_hours, run
from sim_bound import LATE
from sim_plan import WORK, Guess, Plan, Prices, Step, expected
from sim_planner import best_planner
from sim_traces import Trace, traces

WORKERS = 1000
STEP_SECONDS, LONG_STEP_SECONDS = 2, 3
AHEAD = {10.0: (0.0, 10.0, 20.0), 60.0: (0.0, 60.0, 120.0)}
"""By the seconds of a start."""
PAST = (10.0, 60.0, 600.0)
PRICES = (0.3, 0.06, 0.012, 0.003, 0.0007)
"""Of a late job, as a share of what a start costs; of less, more are late."""
MARGINS = (1.0, 1.25, 1.6, 2.2, 3.2)
"""Times the mean, in place of what is not foreseen: as long as some guess has too many late or that saves hours."""
HALVINGS = 2
Row = dict[str, Any]


class Cost(NamedTuple):
    """The share of the jobs that did not begin in time, and worker-hours."""

    late: float
    hours: float


def recede(
    trace: Trace, wait: float, start: float, ahead: float, price: float, guess: Guess, seconds: int = STEP_SECONDS
) -> Cost:
    """One run over a trace. All times in seconds.

    Args:
        price: worker-seconds for a job that does not begin within the wait.
        seconds: length of a step, and between decisions; waits are rounded up to it, as the bound's are.
    """
    arrived = np.cumsum(trace)[seconds - 1 :: seconds][: len(trace) // seconds] * WORKERS / WORK
    waits, known, starts = math.ceil(wait / seconds), int(ahead / seconds), max(1, int(start / seconds))
    ends = np.append(arrived, np.full(known, arrived[-1]))  # who knows so far ahead sees the end, too
    plan = Plan(max(8, known + waits + starts + 1), seconds, starts, Prices(price), WORKERS)
    before, coming, settled, given_up, spent = Step(), np.zeros(starts), 0.0, 0.0, 0.0
    for now in range(len(arrived)):
        seen = expected(ends, now, now + known, waits, plan.steps, Guess(guess.past / seconds, guess.margin))
        due, there = (np.maximum(part - settled, 0) for part in (seen[: plan.steps], seen[waits:]))
        step = plan.first(due, there, before, coming)
        settled, given_up = settled + step.settled, given_up + step.given_up
        spent += seconds * (step.workers + starts * step.started)
        coming = np.append(coming[1:], step.started)
        before = step._replace(settled=0.0, late=max(step.late, 0.0), workers=step.least_workers)
    left = arrived[-1] - settled + before.late
    return Cost(float(given_up / arrived[-1]), float(spent + left * WORK) / 3600)


def at_wait(trace: Trace, wait: float, start: float, ahead: float, seconds: int = STEP_SECONDS) -> float | None:
    """The fewest worker-hours with 5 % late; None: with this guess more are late, whatever the price."""
    tried: list[Cost] = []
    for margin in MARGINS[:1] if ahead else MARGINS:
        before, missed = fewest_hours(tried), 0
        for past in PAST[1:] if ahead else PAST:
            runs = _at_prices(trace, wait, start, ahead, Guess(past, margin), seconds)
            tried, missed = tried + runs, missed + (fewest_hours(runs) == math.inf)
        if not missed and before * (1 - 1e-3) <= fewest_hours(tried):
            break
    return None if fewest_hours(tried) == math.inf else fewest_hours(tried)


def _at_prices(trace: Trace, wait: float, start: float, ahead: float, guess: Guess, seconds: int) -> list[Cost]:
    """Runs with more than 5 % late and with fewer, and prices between them; one run, if even the highest misses it."""
    high, tried = PRICES[0], []
    for price in PRICES:
        tried.append(recede(trace, wait, start, ahead, price * start, guess, seconds))
        if tried[-1].late > LATE:
            break
        high = price
    low = price
    for _ in range(HALVINGS if low < high else 0):
        middle = math.sqrt(low * high)
        tried.append(recede(trace, wait, start, ahead, middle * start, guess, seconds))
        low, high = (middle, high) if tried[-1].late > LATE else (low, middle)
    return tried


def fewest_hours(tried: list[Cost]) -> float:
    """Where the lower hull of the runs has 5 % late jobs: to give up every so-many-th job is a plan as well."""
    on_time, late = ([cost for cost in tried if (cost.late > LATE) == over] for over in (False, True))
    between = (
        good.hours + (bad.hours - good.hours) * (LATE - good.late) / (bad.late - good.late)
        for good, bad in product(on_time, late)
    )
    return min([*(cost.hours for cost in on_time), *between], default=math.inf)


def measure(trace: str, start: float, wait: float) -> Row:
    """All that is compared with our policy, which has this p95 wait."""
    arrivals = traces()[trace]
    seconds = LONG_STEP_SECONDS if min(wait, start) >= 10 * LONG_STEP_SECONDS else STEP_SECONDS
    row: Row = {"trace": trace, "start": start, "wait": wait, "bound": _bound(trace, wait, start)}
    row["ahead"] = {f"{ahead:g}": at_wait(arrivals, wait, start, ahead, seconds) for ahead in AHEAD[start]}
    for name, ahead in (("planner", 0.0), ("planner_ahead", 2 * start)):
        row[name] = best_planner(arrivals, wait, start, WORKERS, ahead, seconds if start > 10 else 1)
    return row


def _bound(trace: str, wait: float, start: float) -> float | None:
    share = least_hours(trace, wait, start)
    return share and share * WORKERS


def main() -> None:
    """Run what is not kept, print, save."""
    arguments = _arguments()
    rows = []
    for trace, start in progress(list(product(arguments.traces, arguments.starts)), "foresight"):
        ours = run((trace, WORKERS, start, OURS, True), 1)
        wait = ours["p95"][0]
        row = _kept(arguments.name, trace, start, wait)
        if row is None and not arguments.kept:
            row = _keep(arguments.name, measure(trace, start, wait))
        if row is not None:
            rows.append({**row, "ours": ours["hours"][0]})
    print(table(rows))
    settings = {"past": PAST, "prices": PRICES, "margins": MARGINS, "step_seconds": (STEP_SECONDS, LONG_STEP_SECONDS)}
    save(arguments.name, _draw(rows), settings, rows, _found(rows))


def _kept(name: str, trace: str, start: float, wait: float) -> Row | None:
    """What was measured for this wait."""
    path = OUT / f"{name}.jsonl"
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        if (row["trace"], row["start"], row["wait"]) == (trace, start, wait):
            return dict(row)
    return None


def _keep(name: str, row: Row) -> Row:
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"{name}.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    return row


def table(rows: list[Row]) -> str:
    """Worker-hours above the bound, in Markdown."""
    head = "| trace | start | p95 wait | ours | H = 0 | H = start | H = 2 starts | planner | planner, H = 2 starts |"
    return "\n".join([head, "|---" * 9 + "|", *map(_line, rows)])


def _line(row: Row) -> str:
    start, planners = row["start"], (row["planner"], row["planner_ahead"])
    ahead = [row["ahead"].get(f"{seconds:g}") for seconds in (0, start, 2 * start)]
    hours = [row["ours"], *ahead, *(planned and planned[1] for planned in planners)]
    return (
        f"| {row['trace']} | {start:g} s | {row['wait']} s | " + " | ".join(_above(row, each) for each in hours) + " |"
    )


def _above(row: Row, hours: float | None) -> str:
    return "–" if hours is None or row["bound"] is None else f"{hours / row['bound'] - 1:+.1%}"


def _found(rows: list[Row]) -> str:
    beaten = [row for row in rows if row["planner"] and row["planner"][1] < row["ours"]]
    names = (f"{row['trace']} at {row['start']:g} s by {1 - row['planner'][1] / row['ours']:.1%}" for row in beaten)
    return f"{len(rows)} cases. A planner without foresight takes fewer worker-hours at our wait: {'; '.join(names)}."


def _draw(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(14, 6), layout="constrained")
    starts = sorted({row["start"] for row in rows})
    for axis, start in zip(np.atleast_1d(figure.subplots(1, len(starts))), starts, strict=True):
        for row in (row for row in rows if row["start"] == start and row["bound"]):
            colour = f"C{list(traces()).index(row['trace'])}"
            ahead = [(float(at), 100 * (hours / row["bound"] - 1)) for at, hours in row["ahead"].items() if hours]
            axis.plot(*zip(*ahead, strict=True), "o-", color=colour, label=row["trace"])
            axis.plot(-start / 10, 100 * (row["ours"] / row["bound"] - 1), "*", color=colour, markersize=14)
        axis.set(title=f"{start:g} s to start; stars: ours", xlabel="arrivals known ahead, s", yscale="symlog")
        axis.set(ylabel="worker-hours above the bound, %")
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one trace, whose workers start in ten seconds")
    parser.add_argument("--starts", type=float, nargs="+", default=list(AHEAD), choices=list(AHEAD), help="seconds")
    parser.add_argument("--traces", nargs="+", default=list(traces()), choices=list(traces()))
    parser.add_argument("--kept", action="store_true", help="print what was measured, and measure nothing")
    parser.add_argument("--name", default="sim_foresight", help="of the files written")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.traces, arguments.starts, arguments.name = ["Azure code"], [10.0], "sim_foresight_short"
    return arguments


if __name__ == "__main__":
    main()
