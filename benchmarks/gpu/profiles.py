"""Runs a step under torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # it has no other public name
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.hardware import seconds_of
from benchmarks.gpu.profile_lines import Entry, Profile, read


def profiled(device: torch.device, act: Callable[[], object]) -> Profile:
    """Run it once under torch's profiler."""
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as recorded:
        seconds = seconds_of(device, act)
    return read(map(_entry, recorded.key_averages()), seconds, on_cuda=on_cuda)


def _entry(average: Any) -> Entry:
    on_device = average.device_type == DeviceType.CUDA
    microseconds = average.self_device_time_total if on_device else average.self_cpu_time_total
    return Entry(average.key, on_device, average.count, microseconds / 1e6)
