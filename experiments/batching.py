"""Continuous batching, static batching, and none, at the same load. `python experiments/batching.py`"""

from __future__ import annotations

import random
from typing import Any

from common import mean, progress, quantile, save
from matplotlib.figure import Figure
from serving import REPEATS, durations, offer, scale, service

MODES = ("continuous", "static", "off")


def main() -> None:
    """One worker a mode; rows of different lengths, for that is where static batches wait."""
    size, rows = scale(), []
    for mode in progress(MODES, "batching"):
        with service(engine=size.engine, slots=16, batching=mode, max_wait_ms=50 if mode == "static" else 0) as running:
            runs = [durations(offer(running, size.rate / 4, size.seconds, seed, _uneven)) for seed in range(REPEATS)]
        rows += [{"mode": mode, "p50": quantile(v, 0.5), "p95": quantile(v, 0.95), "all": v} for v in runs]
    save("batching", _draw(rows), size.settings, rows, _found(rows))


def _uneven(dice: random.Random, number: int) -> dict[str, Any]:
    words = dice.choice((2, 4, 8, 24))
    return {"prompt": " ".join([str(number), *["word"] * words]), "max_tokens": words, "cache": False}


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for mode in MODES:
        values = sorted(value for row in rows if row["mode"] == mode for value in row["all"])
        axis.step(values, [(i + 1) / len(values) for i in range(len(values))], where="post", label=mode)
    axis.set(xlabel="job time, s", ylabel="share of jobs", xscale="log", title="Batching: job time at the same load")
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    parts = [f"{mode} {mean([r['p50'] for r in rows if r['mode'] == mode]):.2f} s and "
             f"{mean([r['p95'] for r in rows if r['mode'] == mode]):.2f} s" for mode in MODES]  # fmt: skip
    return f"p50 and p95 of the job time: {', '.join(parts)}."


if __name__ == "__main__":
    main()
