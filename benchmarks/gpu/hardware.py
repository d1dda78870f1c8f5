"""The device: its name, its number formats, and how long things take on it."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.plan import Task

Act = Callable[[], object]


def device_of(task: Task) -> torch.device:
    """The task's device as tensors name theirs: with its number, where there may be several.

    Tiny shapes gain nothing from more than one thread, and on a busy machine threads mostly wait for one another.
    """
    device = torch.device(task.device)
    if device.type == "cpu" and task.short:
        torch.set_num_threads(1)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def card_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def served_dtype(device: torch.device) -> torch.dtype:
    """The number format that `auto` takes there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def wait(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(device: torch.device, act: Act) -> float:
    """How long it takes, the device's part included."""
    wait(device)
    started = time.perf_counter()
    act()
    wait(device)
    return time.perf_counter() - started


def median_seconds(device: torch.device, act: Act, repeats: int, warm_ups: int = 2) -> float:
    """The median of several runs, behind some that do not count."""
    for _ in range(warm_ups):
        act()
    return statistics.median(seconds_of(device, act) for _ in range(repeats))


def free_memory(device: torch.device) -> None:
    """Let the device have back what no tensor uses."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
