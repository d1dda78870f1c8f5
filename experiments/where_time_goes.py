"""A job's time: queue, until the first token, the rest, the way. `python experiments/where_time_goes.py`"""

from __future__ import annotations

from itertools import product
from typing import Any

from common import mean, progress, save
from matplotlib.figure import Figure
from serving import REPEATS, Done, offer, scale, service

SHARES = (0.25, 0.75, 1.25)
PARTS = ("queue", "first token", "decode", "the way")


def main() -> None:
    """One worker, three loads."""
    size, rows = scale(), []
    with service(engine=size.engine, slots=16) as running:
        for share, seed in progress(list(product(SHARES, range(REPEATS))), "where_time_goes"):
            done = offer(running, share * size.rate, size.seconds, seed)
            rows.append({"share": share, **_parts(done)})
    save("where_time_goes", _draw(rows, size.rate), size.settings, rows, _found(rows))


def _parts(done: list[Done]) -> dict[str, float]:
    split: dict[str, list[float]] = {part: [] for part in PARTS}
    for one in done:
        if one.job is None:
            continue
        timings = one.job["timings"]
        queue, first, run = timings["queue_seconds"], timings["time_to_first_token_seconds"], timings["run_seconds"]
        seconds = (queue, first or run, run - (first or run), max(0.0, one.seconds - queue - run))
        for part, value in zip(PARTS, seconds, strict=True):
            split[part].append(value)
    return {part: mean(values) for part, values in split.items()}


def _mean(rows: list[dict[str, Any]], share: float, part: str) -> float:
    return mean([row[part] for row in rows if row["share"] == share])


def _draw(rows: list[dict[str, Any]], rate: float) -> Figure:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    labels, left = [f"{share * rate:g} jobs/s" for share in SHARES], [0.0] * len(SHARES)
    for part in PARTS:
        widths = [_mean(rows, share, part) for share in SHARES]
        axis.barh(labels, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axis.set(xlabel="mean seconds of a job", title="Where the time goes")
    axis.legend()
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    def shown(share: float) -> str:
        return ", ".join(f"{part} {_mean(rows, share, part) * 1000:.0f} ms" for part in PARTS)

    return f"At the lowest load: {shown(SHARES[0])}; at the highest: {shown(SHARES[-1])}."


if __name__ == "__main__":
    main()
