"""The tables of docs/scaler-experiments.md, from what experiments/scaler_sim.py has measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from common import mean, spread

MAIN = ("promptq", "before", "RunPod count")
"""Those that every case shows; the others have tables of their own."""
IN_A_TABLE = 3
Row = dict[str, Any]


def markdown(rows: Sequence[Row]) -> str:
    """A table for each fleet and start, and for each three of the other policies."""
    parts = []
    for (size, start), group in groupby(sorted(rows, key=_case), _case):
        case = list(group)
        others = [name for name in dict.fromkeys(row["policy"] for row in case) if name not in MAIN]
        named = [MAIN, *(others[at : at + IN_A_TABLE] for at in range(0, len(others), IN_A_TABLE))]
        parts += [f"**{size:,} workers, {start:.0f} s to start:**\n\n" + _table(case, names) for names in named]
    return "\n\n".join(parts) + "\n"


def _case(row: Row) -> tuple[int, float]:
    return row["workers"], row["start"]


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    has_bound = any("bound" in row for row in rows) and MAIN[0] in names
    heads = ["trace", *names, *(["clairvoyant"] if has_bound else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for trace in dict.fromkeys(row["trace"] for row in rows):
        row_of = {row["policy"]: row for row in rows if row["trace"] == trace}
        lines.append(f"| {' | '.join([trace, *_cells(row_of, names, has_bound)])} |")
    return "\n".join(lines)


def _cells(row_of: dict[str, Row], names: Sequence[str], has_bound: bool) -> Iterator[str]:
    for name in names:
        row = row_of.get(name)
        yield _figures(row) if row else "–"
    if has_bound:
        yield _bound(row_of[MAIN[0]])


def _figures(row: Row) -> str:
    """Wait, worker-hours, starts: means over the seeds, with half of the range where it shows."""
    digits = 1 if row["workers"] < 1000 else 0
    return f"{_spanned(row['p95'], 1)} / {_spanned(row['hours'], digits)} / {mean(row['starts']):,.0f}"


def _spanned(values: Sequence[float], digits: int) -> str:
    middle, half = f"{mean(values):,.{digits}f}", f"{spread(values):,.{digits}f}"
    return f"{middle}±{half}" if float(half.replace(",", "")) else middle


def _bound(row: Row) -> str:
    if "bound" not in row:
        return "–"
    return f"{row['bound']:,.0f} ({mean(row['hours']) / row['bound'] - 1:+.1%})"
