"""Which stages there are, in which order, and how long each may take. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Stage:
    """One process.

    Attributes:
        module: in `benchmarks.gpu.stages`, with a function `run(task, report)`.
        seconds: its time limit.
        shape: the name of the shape that it measures; empty: it chooses by itself.
    """

    name: str
    module: str
    seconds: float
    shape: str = ""


# By what is worth most where time runs out.
STAGES = (
    Stage("versions", "versions", 60),
    Stage("rates", "rates", 40),
    Stage("flash", "flash", 60),
    Stage("parity", "parity", 90),
    Stage("steps-135M", "steps", 60, "135M"),
    Stage("steps-1B", "steps", 60, "1B"),
    Stage("steps-8B", "steps", 90, "8B"),
    Stage("peers", "peers", 75),
    Stage("first-token", "first_token", 45),
    Stage("start", "start", 60),
    Stage("two-workers", "two_workers", 75),
    Stage("memory", "memory", 60),
    Stage("step-cost", "step_costs", 75),
    Stage("vllm", "vllm", 150),
)


@dataclass(frozen=True, slots=True)
class Task:
    """What a stage is given.

    Attributes:
        device: as torch names it.
        short: tiny shapes, few repeats.
        vllm: an interpreter that has vLLM; empty: none has.
        earlier: what stages before this one have found, by their names.
        folder: for the stage's own files; it is removed after it.
    """

    stage: Stage
    device: str
    short: bool
    vllm: str
    earlier: dict[str, dict[str, Any]]
    folder: Path

    @property
    def bandwidth(self) -> float | None:
        """Bytes that the device copies in a second, read and written ones counted; None: that is not known."""
        return self.earlier.get("rates", {}).get("copy_bytes_per_second")


def chosen(only: Collection[str]) -> Sequence[Stage]:
    """The stages of these names, in their order; all, if none is named.

    Raises:
        ValueError: there is no stage of some name.
    """
    known = {stage.name for stage in STAGES}
    if wrong := set(only) - known:
        raise ValueError(f"no stage {', '.join(sorted(wrong))}; there are {', '.join(stage.name for stage in STAGES)}")
    return [stage for stage in STAGES if not only or stage.name in only]


LEAST_SECONDS = 10.0
"""A stage is not begun in less: it would hardly have imported torch."""
SHORT_FACTOR = 3.0
"""Limits are made for a machine with a GPU. Where scripts are tried out, imports alone may take as long."""


def limit_seconds(stage: Stage, left: float, short: bool) -> float | None:
    """How long the stage may take, of so many seconds that are left for all; None: it is not begun."""
    return min(stage.seconds * (SHORT_FACTOR if short else 1.0), left) if left >= LEAST_SECONDS else None
