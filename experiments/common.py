"""What the experiments share: a progress bar, files beside each other, and a place for them."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = Path(os.environ.get("EXPERIMENTS_OUT", ROOT / ".promptq" / "experiments"))
WIDTH = 30
Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterator[Item]:
    """The items, with a bar on stderr."""
    for number, item in enumerate(items):
        filled = WIDTH * number // len(items)
        print(f"\r{title} [{'█' * filled:{WIDTH}}] {number}/{len(items)}", end="", file=sys.stderr, flush=True)
        yield item
    print(f"\r{title} [{'█' * WIDTH}] {len(items)}/{len(items)}", file=sys.stderr, flush=True)


def save(name: str, figure: Figure, settings: dict[str, Any], rows: list[dict[str, Any]], found: str) -> None:
    """NAME.json with the raw numbers, NAME.png and .svg; prints what was found."""
    OUT.mkdir(parents=True, exist_ok=True)
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    record = {"settings": settings, "machine": machine, "found": found, "rows": rows}
    (OUT / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    for kind in ("png", "svg"):
        figure.savefig(OUT / f"{name}.{kind}", dpi=110)
    print(f"{name}: {found}\n  → {OUT / name}.png, .svg, .json")


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all stays within."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def mean(values: Sequence[float]) -> float:
    """Mean."""
    return sum(values) / len(values) if values else 0.0


def spread(values: Sequence[float]) -> float:
    """Half of the range: what the error bars show."""
    return (max(values) - min(values)) / 2 if values else 0.0
