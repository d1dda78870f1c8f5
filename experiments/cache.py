"""The cache on and off, over how often prompts repeat. `python experiments/cache.py`"""

from __future__ import annotations

import random
from itertools import product
from typing import Any

from common import mean, progress, quantile, save, spread
from matplotlib.figure import Figure
from serving import REPEATS, Body, durations, offer, scale, service

REPEAT_SHARES = (0.0, 0.3, 0.6, 0.9)
POPULAR = 5


def main() -> None:
    """The same arrivals with and without."""
    size, rows = scale(), []
    with service(engine=size.engine, slots=16) as running:
        for share, cache, seed in progress(list(product(REPEAT_SHARES, (True, False), range(REPEATS))), "cache"):
            done = offer(running, size.rate / 2, size.seconds, seed, _asking(share, cache, seed))
            saved = mean([float(one.job["cache"] in ("hit", "join")) for one in done if one.job])
            values = durations(done)
            quantiles = {"p50": quantile(values, 0.5), "p95": quantile(values, 0.95)}
            rows.append({"repeats": share, "cache": cache, "saved": saved, **quantiles})
    save("cache", _draw(rows), size.settings, rows, _found(rows))


def _asking(share: float, cache: bool, seed: int) -> Body:
    """No run finds what another one left in the cache."""

    def body(dice: random.Random, number: int) -> dict[str, Any]:
        subject = f"popular {dice.randrange(POPULAR)}" if dice.random() < share else f"new {number}"
        return {
            "prompt": f"run {share} {seed}: tell me more about {subject} and so on",
            "max_tokens": 12,
            "cache": cache,
        }

    return body


def _at(rows: list[dict[str, Any]], share: float, cache: bool, name: str) -> list[float]:
    return [row[name] for row in rows if (row["repeats"], row["cache"]) == (share, cache)]


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    times, saved = figure.subplots(1, 2)
    for (cache, line), name in product(((True, "-"), (False, "--")), ("p50", "p95")):
        values = [_at(rows, share, cache, name) for share in REPEAT_SHARES]
        label = f"{name}, cache {'on' if cache else 'off'}"
        error = [spread(v) for v in values]
        times.errorbar(REPEAT_SHARES, [mean(v) for v in values], error, fmt=line + "o", capsize=3, label=label)
    times.set(xlabel="share of repeated prompts", ylabel="job time, s", ylim=(0, None), title="Job time")
    times.legend()
    values = [_at(rows, share, True, "saved") for share in REPEAT_SHARES]
    saved.errorbar(REPEAT_SHARES, [mean(v) for v in values], [spread(v) for v in values], marker="o", capsize=3)
    saved.set(
        xlabel="share of repeated prompts", ylabel="share of jobs", ylim=(0, 1), title="Generations saved (hit, join)"
    )
    return figure


def _found(rows: list[dict[str, Any]]) -> str:
    most = REPEAT_SHARES[-1]
    return (
        f"With {most:.0%} repeats the cache saves {mean(_at(rows, most, True, 'saved')):.0%} of the generations, and "
        f"the p50 is {mean(_at(rows, most, True, 'p50')) * 1000:.0f} ms where it is "
        f"{mean(_at(rows, most, False, 'p50')) * 1000:.0f} ms without."
    )


if __name__ == "__main__":
    main()
