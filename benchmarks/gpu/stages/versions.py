"""What the numbers of the other stages come from: the card, the driver, the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess

import torch

from benchmarks.gpu.hardware import card_name, device_of
from benchmarks.gpu.paths import paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report

PACKAGES = ("torch", "transformers", "triton", "tokenizers", "pydantic", "numpy", "xgrammar", "vllm")


def run(task: Task, report: Report) -> None:
    """Fails where the device cannot be used, before anything else is tried on it."""
    device = device_of(task)
    report.note(card=card_name(device), python=platform.python_version(), processors=os.cpu_count())
    report.note(packages={name: _version(name) for name in PACKAGES})
    report.note(
        flash=torch.backends.cuda.is_flash_attention_available(),
        paths=[path.name for path in paths(device, torch.bfloat16)],
        sum=float(torch.ones(3, device=device).sum()),
    )
    if device.type == "cuda":
        report.note(**_gpu(device))


def _gpu(device: torch.device) -> dict[str, object]:
    free, total = torch.cuda.mem_get_info(device)
    properties = torch.cuda.get_device_properties(device)
    return {
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "cuda": torch.version.cuda,
        "free_bytes": free,
        "total_bytes": total,
        "multiprocessors": properties.multi_processor_count,
        "gpus": torch.cuda.device_count(),
        "compiler": shutil.which("gcc") or "",  # Triton needs one
        "driver": _driver(),
    }


def _driver() -> str:
    command = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit",
        "--format=csv,noheader",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
