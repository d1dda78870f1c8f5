"""Slots × wait, with static batches: throughput against p95. `python experiments/batch_size.py`"""

from __future__ import annotations

from itertools import product
from typing import Any

from common import mean, progress, quantile, save, spread
from matplotlib.figure import Figure
from serving import REPEATS, Done, durations, offer, scale, service

SLOTS = (1, 4, 16)
WAITS_MS = (0, 100, 400)


def main() -> None:
    """Each setting gets more than it can do."""
    size, rows = scale(), []
    for slots, wait in progress(list(product(SLOTS, WAITS_MS)), "batch_size"):
        with service(engine=size.engine, slots=slots, batching="static", max_wait_ms=wait) as running:
            # Half as long as elsewhere: a single slot takes six times as long to work it off.
            runs = [offer(running, size.rate / 2, size.seconds / 2, seed) for seed in range(REPEATS)]
        rows += [{"slots": slots, "wait_ms": wait, **_figures(done)} for done in runs]
    save("batch_size", _draw(rows), size.settings, rows, _found(rows))


def _figures(done: list[Done]) -> dict[str, float]:
    values = durations(done)
    ended = max((one.due + one.seconds for one in done), default=1.0)
    batch = mean([one.job["timings"]["batch_size"] for one in done if one.job])
    return {"throughput": len(values) / ended, "p95": quantile(values, 0.95), "batch": batch}


def _at(rows: list[dict[str, Any]], slots: int, wait: int, name: str) -> list[float]:
    return [row[name] for row in rows if (row["slots"], row["wait_ms"]) == (slots, wait)]


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    pareto, late, batch = figure.subplots(1, 3)
    for wait in WAITS_MS:
        x = [_at(rows, slots, wait, "throughput") for slots in SLOTS]
        y = [_at(rows, slots, wait, "p95") for slots in SLOTS]
        errors = {"xerr": [spread(v) for v in x], "yerr": [spread(v) for v in y]}
        pareto.errorbar([mean(v) for v in x], [mean(v) for v in y], **errors, marker="o", capsize=3, label=f"{wait} ms")
    pareto.set(xlabel="throughput, jobs/s", ylabel="p95 of the job time, s", title=f"slots {SLOTS}, from left to right")
    pareto.legend(title="wait")
    for axis, name, title in ((late, "p95", "p95, s"), (batch, "batch", "realised batch, rows")):
        table = [[mean(_at(rows, slots, wait, name)) for wait in WAITS_MS] for slots in SLOTS]
        axis.imshow(table, cmap="viridis", aspect="auto")
        axis.set(xticks=range(len(WAITS_MS)), xticklabels=WAITS_MS, yticks=range(len(SLOTS)), yticklabels=SLOTS)
        axis.set(xlabel="wait, ms", ylabel="slots", title=title)
        for i, j in product(range(len(SLOTS)), range(len(WAITS_MS))):
            axis.text(j, i, f"{table[i][j]:.2f}", ha="center", va="center", color="white")
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    one, many = _at(rows, SLOTS[0], 0, "throughput"), _at(rows, SLOTS[-1], 0, "throughput")
    return (
        f"{SLOTS[-1]} slots end {mean(many):.1f} jobs/s, one slot {mean(one):.1f}; with {SLOTS[-1]} slots a wait of "
        f"{WAITS_MS[-1]} ms takes p95 from {mean(_at(rows, SLOTS[-1], 0, 'p95')):.2f} s to "
        f"{mean(_at(rows, SLOTS[-1], WAITS_MS[-1], 'p95')):.2f} s."
    )


if __name__ == "__main__":
    main()
