"""What the device can do at most: bytes copied and numbers multiplied a second. All floors come from these."""

from __future__ import annotations

import torch

from benchmarks.gpu.hardware import device_of, median_seconds, served_dtype
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report

# Far beyond every cache.
COPY_BYTES = 4 * 2**30
SHORT_COPY_BYTES = 64 * 2**20
SIZE, SHORT_SIZE = 8192, 512


def run(task: Task, report: Report) -> None:
    device, repeats = device_of(task), 3 if task.short else 10
    report.note(copy_bytes_per_second=_copy(device, SHORT_COPY_BYTES if task.short else COPY_BYTES, repeats))
    size = SHORT_SIZE if task.short else SIZE
    for dtype in dict.fromkeys((served_dtype(device), torch.float32)):
        name = str(dtype).removeprefix("torch.")
        report.note(**{f"{name}_operations_per_second": _product(device, dtype, size, repeats)})
    report.note(launch_seconds=_launch(device, repeats))


def _copy(device: torch.device, size: int, repeats: int) -> float:
    """Bytes a second, those read and those written counted, of random numbers."""
    source = torch.randint(256, (size // 2,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(device, lambda: target.copy_(source), repeats)


def _product(device: torch.device, dtype: torch.dtype, size: int, repeats: int) -> float:
    """Additions and multiplications a second, of random square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_seconds(device, lambda: left @ right, repeats)


def _launch(device: torch.device, repeats: int) -> float:
    """What one small operation takes from the host, of a thousand behind one another."""
    small = torch.zeros(32, device=device)

    def thousand() -> None:
        for _ in range(1000):
            small.add_(1)

    return median_seconds(device, thousand, repeats) / 1000
