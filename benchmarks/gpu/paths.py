"""The ways through the engine that are compared: the present one, and the graph-shaped one where it is there."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.kvcache.slots import SlotCache
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner

GRAPH_RUNNER = "gpu_worker.engines.continuous.runners.graph.runner"
SIXTEEN_BITS = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Path:
    """One way.

    Attributes:
        runner: makes it for a model and its memory.
        options: with which an engine takes it.
    """

    name: str
    runner: Callable[[PreTrainedModel, SlotCache], Runner]
    options: Mapping[str, Any] = field(default_factory=dict)


def paths(device: torch.device, dtype: torch.dtype) -> list[Path]:
    """The ways there are for this device and number format. The new one is first: it joins weights, in place, that the
    present one then reads where they are.
    """
    makers = [_graph_path()] if device.type == "cpu" or dtype in SIXTEEN_BITS else []
    return [path for path in [*makers, Path("present", PackedRunner, _engine_options(graphs=False))] if path]


def _graph_path() -> Path | None:
    try:
        runner = importlib.import_module(GRAPH_RUNNER).GraphRunner
    except ModuleNotFoundError:
        return None
    return Path("graph", runner, _engine_options(graphs=True))


def _engine_options(**wanted: Any) -> dict[str, Any]:
    """Those of them that this engine knows."""
    known = inspect.signature(ContinuousEngine).parameters
    return {name: value for name, value in wanted.items() if name in known}
