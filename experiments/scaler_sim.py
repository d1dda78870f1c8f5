"""The scaler's policy, simulated beside others': five traces, from 10 to 10,000 workers.

    python experiments/scaler_sim.py [--short] [--limit up_delay_seconds=0 …]

Prints a table, and tells every peer that has both a lower p95 wait and fewer worker-hours than ours (nobody should).
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

from common import mean, progress, save
from matplotlib.figure import Figure
from sim_model import SERVICE_SECONDS, SLOTS, START_SECONDS, STEP_SECONDS, TRACES, simulate
from sim_policies import policies

from promptq.contract.settings import ScalerSettings
from scaler.load import Limits

OURS = "promptq"
SIZES = {10: 10, 1000: 5, 10_000: 3}
"""Largest fleet, and seeds: few workers vary more."""
SHORT_SIZES = {10: 3}
ARGUMENTS = argparse.Namespace(short=False, limit=[], name="scaler_sim")
Row = dict[str, Any]


def main() -> None:
    """Run, print, save."""
    sizes = SHORT_SIZES if ARGUMENTS.short else SIZES
    rows = [_row(*case) for case in progress(_cases(sizes), "scaler_sim")]
    _print(rows)
    settings = {
        "slots": SLOTS, "service_seconds": SERVICE_SECONDS, "start_seconds": START_SECONDS, "seeds": sizes,
        "step_seconds": STEP_SECONDS, "limits": str(_limits(max(sizes))),
    }  # fmt: skip
    save(ARGUMENTS.name, _draw(rows, max(sizes)), settings, rows, _found(rows))


def dominating(rows: list[Row], by_seconds: float) -> list[Row]:
    """Peers with a p95 wait lower by more than so much, and fewer worker-hours than ours, in the same case."""
    ours = {(row["trace"], row["workers"]): row for row in rows if row["policy"] == OURS}
    return [
        row for row in rows
        if (mine := ours[row["trace"], row["workers"]])
        and row["p95_wait"] < mine["p95_wait"] - by_seconds and row["worker_hours"] < mine["worker_hours"]
    ]  # fmt: skip


def _limits(largest: int) -> Limits:
    """The defaults that the service ships with, and what `--limit` changes."""
    changes = {name: float(value) for name, _, value in (change.partition("=") for change in ARGUMENTS.limit)}
    return Limits.of(ScalerSettings(_env_file=None, **changes), 0, largest)


def _cases(sizes: dict[int, int]) -> list[tuple[int, int, str, str]]:
    return [
        (size, seeds, trace, policy)
        for (size, seeds), trace, policy in product(sizes.items(), TRACES, policies(_limits(1)))
    ]


def _row(size: int, seeds: int, trace: str, policy: str) -> Row:
    make = policies(_limits(size))[policy]
    runs = [simulate(make(), TRACES[trace], size, seed) for seed in range(1, seeds + 1)]
    return {
        "trace": trace, "workers": size, "policy": policy, "p95_wait": round(mean([run.p95() for run in runs]), 3),
        "share_late": round(mean([run.share_late() for run in runs]), 4),
        "worker_hours": round(mean([run.worker_seconds / 3600 for run in runs]), 2),
        "changes": round(mean([run.changes for run in runs])), "p95_of_seeds": [run.p95() for run in runs],
    }  # fmt: skip


def _print(rows: list[Row]) -> None:
    print(f"{'workers':>7} {'trace':10} {'policy':13} {'p95 wait':>9} {'late':>7} {'worker-h':>9} {'changes':>8}")
    for row in rows:
        print(
            f"{row['workers']:7} {row['trace']:10} {row['policy']:13} {row['p95_wait']:8.2f}s {row['share_late']:7.1%} "
            f"{row['worker_hours']:9.2f} {row['changes']:8}"
        )


def _found(rows: list[Row]) -> str:
    cases = len({(row["trace"], row["workers"]) for row in rows})
    return (
        f"{cases} cases of trace and size. Fewer worker-hours and a p95 wait lower by more than a step of the model "
        f"({STEP_SECONDS} s): {_named(dominating(rows, STEP_SECONDS))}; lower by anything: "
        f"{_named(dominating(rows, 0))}."
    )


def _named(rows: list[Row]) -> str:
    return ", ".join(f"{row['policy']} in {row['trace']} at {row['workers']}" for row in rows) or "nobody"


def _draw(rows: list[Row], size: int) -> Figure:
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    axes = figure.subplots(2, 3).flat
    for axis, trace in zip(axes, TRACES, strict=False):
        for row in (row for row in rows if (row["trace"], row["workers"]) == (trace, size)):
            style = {"marker": "*", "s": 260, "zorder": 3} if row["policy"] == OURS else {"marker": "o", "s": 60}
            axis.scatter(row["worker_hours"], row["p95_wait"] + 0.1, label=row["policy"], **style)
        axis.set(title=trace, xlabel="worker-hours", ylabel="p95 wait + 0.1, s", yscale="log")
        axis.grid(alpha=0.3)
    last = figure.axes[-1]
    last.axis("off")
    last.legend(*figure.axes[0].get_legend_handles_labels(), loc="center", title=f"at most {size:,} workers")
    figure.suptitle("Wait against cost: nearer to the corner at the lower left is better")
    return figure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="ten workers, three seeds")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE", help="a setting of the scaler")
    parser.add_argument("--name", default="scaler_sim", help="of the files written")
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = _arguments()
    main()
