"""Offered load against p50, p95, p99 and goodput: where is the knee? `python experiments/offered_load.py`"""

from __future__ import annotations

from itertools import product
from typing import Any

from common import mean, progress, quantile, save, spread
from matplotlib.figure import Figure
from serving import REPEATS, durations, offer, scale, service

SHARES = (0.25, 0.5, 1.0, 1.5, 2.0)
TARGET_SECONDS = 2.0


def main() -> None:
    """One worker, five rates, up to more than it can do."""
    size, rows = scale(), []
    with service(engine=size.engine, slots=16) as running:
        for share, seed in progress(list(product(SHARES, range(REPEATS))), "offered_load"):
            values = durations(done := offer(running, share * size.rate, size.seconds, seed))
            good = sum(value <= TARGET_SECONDS for value in values)
            quantiles = {f"p{q * 100:.0f}": quantile(values, q) for q in (0.5, 0.95, 0.99)}
            rows.append(
                {"offered": len(done) / size.seconds, "share": share, "goodput": good / size.seconds, **quantiles}
            )
    save("offered_load", _draw(rows), size.settings | {"target_seconds": TARGET_SECONDS}, rows, _found(rows))


def _at(rows: list[dict[str, Any]], share: float, name: str) -> list[float]:
    return [row[name] for row in rows if row["share"] == share]


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    waits, good = figure.subplots(1, 2)
    offered = [mean(_at(rows, share, "offered")) for share in SHARES]
    for name in ("p50", "p95", "p99"):
        values = [_at(rows, share, name) for share in SHARES]
        waits.errorbar(
            offered, [mean(v) for v in values], [spread(v) for v in values], marker="o", capsize=3, label=name
        )
    waits.set(xlabel="offered, jobs/s", ylabel="job time, s", ylim=(0, None), title="Job time")
    waits.legend()
    values = [_at(rows, share, "goodput") for share in SHARES]
    good.errorbar(offered, [mean(v) for v in values], [spread(v) for v in values], marker="o", capsize=3)
    good.plot(offered, offered, ":", color="grey", label="all that was offered")
    good.set(xlabel="offered, jobs/s", ylabel=f"ended within {TARGET_SECONDS:g} s, jobs/s", title="Goodput")
    good.legend()
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    first, last = SHARES[0], SHARES[-1]
    return (
        f"p95 is {mean(_at(rows, first, 'p95')):.2f} s at {mean(_at(rows, first, 'offered')):.1f} jobs/s and "
        f"{mean(_at(rows, last, 'p95')):.2f} s at {mean(_at(rows, last, 'offered')):.1f}; goodput there is "
        f"{mean(_at(rows, last, 'goodput')):.1f} jobs/s."
    )


if __name__ == "__main__":
    main()
