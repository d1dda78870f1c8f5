"""One, two and four workers on one device. `python experiments/workers.py`

With the echo engine, which only waits, more workers always do more; with the model they share the device.
"""

from __future__ import annotations

from typing import Any

from common import mean, progress, quantile, save, spread
from matplotlib.figure import Figure
from serving import REPEATS, Done, durations, offer, scale, service

COUNTS = (1, 2, 4)
SLOTS = 4


def main() -> None:
    """Each number of workers gets more than one can do."""
    size, rows = scale(), []
    for count in progress(COUNTS, "workers"):
        with service(workers=count, engine=size.engine, slots=SLOTS) as running:
            runs = [offer(running, size.rate, size.seconds, seed) for seed in range(REPEATS)]
        rows += [{"workers": count, **_figures(done)} for done in runs]
    save("workers", _draw(rows), size.settings | {"slots": SLOTS}, rows, _found(rows))


def _figures(done: list[Done]) -> dict[str, float]:
    values = durations(done)
    ended = max((one.due + one.seconds for one in done), default=1.0)
    return {"throughput": len(values) / ended, "p95": quantile(values, 0.95)}


def _at(rows: list[dict[str, Any]], count: int, name: str) -> list[float]:
    return [row[name] for row in rows if row["workers"] == count]


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, name, label in zip(figure.subplots(1, 2), ("throughput", "p95"), ("jobs/s", "p95, s"), strict=True):
        values = [_at(rows, count, name) for count in COUNTS]
        error = [spread(v) for v in values]
        axis.bar([str(count) for count in COUNTS], [mean(v) for v in values], yerr=error, capsize=4)
        axis.set(xlabel="workers on one device", ylabel=label)
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    parts = [f"{count}: {mean(_at(rows, count, 'throughput')):.1f} jobs/s" for count in COUNTS]
    return f"Throughput by workers: {', '.join(parts)}."


if __name__ == "__main__":
    main()
