"""What panels are made of. `python ops/grafana/build.py` makes dashboards of those in overview.py and workers.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression, and how its series are named."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's name of it; `width` counts in 24ths."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 8
    stacked: bool = False
    bounds: tuple[float | None, float | None] = field(default=(0, None))


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """Increase per second, summed."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{labels}[{RATE}]))"


def quantiles(metric: str, by: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        Query(f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))", f"p{q * 100:.0f}{legend}")
        for q in (0.5, 0.95, 0.99)
    )


def mean(metric: str) -> str:
    """Mean of a histogram's observations."""
    return f"sum(rate({metric}_sum[{RATE}])) / sum(rate({metric}_count[{RATE}]))"


def stat(title: str, description: str, unit: str, expr: str) -> Panel:
    """One number."""
    return Panel(title, description, unit, (Query(expr, title),), "stat", width=3)
