"""The scaler's policy, simulated beside others' and a clairvoyant: ten traces, from 10 to 10,000 workers.

    python experiments/scaler_sim.py [--short] [--workers 10 1000] [--starts 1 10 60] [--no-bound]

Each case is kept as soon as it is done, so that a run that was broken off goes on. Prints a table, writes those of the
manual, and tells every peer that has both a lower p95 wait and fewer worker-hours than ours (nobody should).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from typing import Any

from common import OUT, mean, save
from matplotlib.figure import Figure
from sim_model import SERVICE_SECONDS, SLOTS, STEP_SECONDS, simulate
from sim_policies import policies
from sim_tables import markdown
from sim_traces import traces

from promptq.contract.settings import ScalerSettings
from scaler.load import Limits

OURS = "promptq"
SEEDS = {10: 5, 1000: 3, 10_000: 1}
"""By the largest fleet: few workers vary more."""
STARTS = (1.0, 10.0, 60.0)
BOUND_WORKERS = 1000
"""From so many on a fleet is a fluid, as the clairvoyant's is."""
Row = dict[str, Any]
Case = tuple[str, int, float, str, bool]


def main() -> None:
    """Run, print, save."""
    arguments = _arguments()
    done = _kept(arguments.name)
    cases = [case for case in _cases(arguments) if _key(case) not in done]
    with ProcessPoolExecutor(arguments.processes) as pool, _file(arguments.name).open("a") as kept:
        jobs = {pool.submit(run, case, arguments.seeds): case for case in cases}
        for number, job in enumerate(as_completed(jobs), 1):
            done[_key(jobs[job])] = row = job.result()
            kept.write(json.dumps(row) + "\n")
            kept.flush()
            print(f"{number}/{len(jobs)}", _line(row), flush=True)
        rows = [done[_key(case)] for case in _cases(arguments)]
        if not arguments.no_bound:
            _add_bounds(rows, pool)
    settings = {"slots": SLOTS, "service_seconds": SERVICE_SECONDS, "step_seconds": STEP_SECONDS, "seeds": SEEDS}
    print("\n".join(map(_line, rows)))
    save(arguments.name, _draw(rows), settings, rows, _found(rows))
    (OUT / f"{arguments.name}.md").write_text(markdown(rows))


def run(case: Case, seeds: int | None) -> Row:
    """One policy on one trace, on each seed."""
    trace, size, start, policy, keeps = case
    make = policies(_limits(size))[policy]
    arrivals = traces()[trace]
    runs = [simulate(make(), arrivals, size, seed, start, keeps) for seed in range(1, (seeds or SEEDS[size]) + 1)]
    return {
        "trace": trace, "workers": size, "start": start, "policy": policy, "keeps_progress": keeps,
        "p95": [one.p95() for one in runs], "hours": [round(one.worker_seconds / 3600, 3) for one in runs],
        "changes": [one.changes for one in runs], "starts": [one.starts for one in runs],
    }  # fmt: skip


def dominating(rows: list[Row], by_seconds: float) -> list[Row]:
    """Peers with a p95 wait lower by more than so much, and fewer worker-hours than ours, in the same case."""
    ours = {_place(row): row for row in rows if row["policy"] == OURS}
    return [
        row for row in rows
        if (mine := ours.get(_place(row)))
        and mean(row["p95"]) < mean(mine["p95"]) - by_seconds and mean(row["hours"]) < mean(mine["hours"])
    ]  # fmt: skip


def _limits(largest: int) -> Limits:
    """The defaults that the service ships with."""
    return Limits.of(ScalerSettings(_env_file=None), 0, largest)


def _cases(arguments: argparse.Namespace) -> list[Case]:
    names = arguments.policies or list(policies(_limits(1)))
    return [
        (trace, size, start, policy, not arguments.loses_progress)
        for size, start, trace, policy in product(arguments.workers, arguments.starts, traces(), names)
    ]


def _place(row: Row) -> tuple[Any, ...]:
    return row["trace"], row["workers"], row["start"], row["keeps_progress"]


def _key(case: Case) -> str:
    return json.dumps(case)


def _file(name: str) -> Any:
    OUT.mkdir(parents=True, exist_ok=True)
    return OUT / f"{name}.jsonl"


def _kept(name: str) -> dict[str, Row]:
    lines = _file(name).read_text().splitlines() if _file(name).exists() else []
    rows = [json.loads(line) for line in lines]
    return {_key((row["trace"], row["workers"], row["start"], row["policy"], row["keeps_progress"])): row
            for row in rows}  # fmt: skip


def _add_bounds(rows: list[Row], pool: ProcessPoolExecutor) -> None:
    """The clairvoyant's worker-hours at our wait, beside ours."""
    ours = [row for row in rows if row["policy"] == OURS and row["workers"] >= BOUND_WORKERS]
    asked = [(row, pool.submit(least_hours, row["trace"], mean(row["p95"]), row["start"])) for row in ours]
    for row, answer in asked:
        if share := answer.result():
            row["bound"] = round(share * row["workers"], 2)


@cache
def least_hours(trace: str, wait: float, start: float) -> float | None:
    """The clairvoyant's worker-hours, as a share of the largest fleet; None where its program is not solved."""
    from sim_bound import bound

    try:
        return bound(traces()[trace], wait, start)
    except ArithmeticError:
        return None


def _line(row: Row) -> str:
    def spanned(name: str, form: str) -> str:
        values = row[name]
        return f"{mean(values):{form}}" + (f" ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else "")

    over = f" bound {row['bound']:,.2f} (+{mean(row['hours']) / row['bound'] - 1:.1%})" if "bound" in row else ""
    return (
        f"{row['workers']:6} {row['start']:4.0f} {row['trace']:10} {row['policy']:13} {spanned('p95', '.2f'):22} "
        f"{spanned('hours', ',.2f'):32} {mean(row['changes']):6.0f} {mean(row['starts']):8.0f}{over}"
    )


def _found(rows: list[Row]) -> str:
    cases = len({_place(row) for row in rows})
    over = [mean(row["hours"]) / row["bound"] - 1 for row in rows if "bound" in row]
    bounded = f" Ours is {min(over):.1%} to {max(over):.1%} above the clairvoyant." if over else ""
    return (
        f"{cases} cases. Fewer worker-hours and a p95 wait lower by more than a step of the model ({STEP_SECONDS} s): "
        f"{_named(dominating(rows, STEP_SECONDS))}; lower by anything: {_named(dominating(rows, 0))}.{bounded}"
    )


def _named(rows: list[Row]) -> str:
    places = (f"{row['policy']} in {row['trace']} at {row['workers']}, {row['start']:.0f} s" for row in rows)
    return "; ".join(places) or "nobody"


def _draw(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(20, 8), layout="constrained")
    axes: Iterator[Any] = iter(figure.subplots(2, 5).flat)
    size, start = max((row["workers"], row["start"]) for row in rows if row["start"] <= 10)
    for axis, trace in zip(axes, traces(), strict=True):
        for row in (row for row in rows if (row["trace"], row["workers"], row["start"]) == (trace, size, start)):
            style = {"marker": "*", "s": 260, "zorder": 3} if row["policy"] == OURS else {"marker": "o", "s": 60}
            axis.scatter(mean(row["hours"]), mean(row["p95"]) + 0.1, label=row["policy"], **style)
            if "bound" in row:
                axis.axvline(row["bound"], color="grey", linestyle=":")
        axis.set(title=trace, xlabel="worker-hours", ylabel="p95 wait + 0.1, s", yscale="log")
        axis.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=9)
    figure.suptitle(f"Wait against cost, {size:,} workers, {start:.0f} s to start; dotted: a clairvoyant at our wait")
    return figure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="ten workers that start in ten seconds, two seeds, ours")
    parser.add_argument("--workers", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--starts", type=float, nargs="+", default=list(STARTS), help="seconds")
    parser.add_argument("--policies", nargs="+", help="all, unless some are named")
    parser.add_argument("--seeds", type=int, help="in place of as many as the size asks for")
    parser.add_argument("--loses-progress", action="store_true", help="who goes ends its rows first")
    parser.add_argument("--no-bound", action="store_true", help="without the clairvoyant")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--name", default="scaler_sim", help="of the files written")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.workers, arguments.starts, arguments.seeds, arguments.name = [10], [10.0], 2, "scaler_sim_short"
    return arguments


if __name__ == "__main__":
    main()
