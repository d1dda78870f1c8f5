"""The GPUs of this machine: what they are, how busy, and where the next worker goes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment. Memory is in bytes; `utilization` is a share from 0 to 1."""

    index: int
    uuid: str
    utilization: float
    memory_used: int
    memory_total: int

    @property
    def memory_free(self) -> int:
        """Bytes not in use."""
        return self.memory_total - self.memory_used


class Gpus:
    """Reads the GPUs through NVML; without NVML there are none.

    Args:
        allowed: the user's CUDA_VISIBLE_DEVICES: indices or UUIDs, comma-separated; None allows all.
        nvml: the `pynvml` module, or a stand-in.
    """

    def __init__(self, allowed: str | None = None, nvml: Any = None) -> None:
        self._allowed = None if allowed is None else [token.strip() for token in allowed.split(",") if token.strip()]
        self._nvml = _initialized(nvml)

    def read(self) -> list[Gpu]:
        """Every GPU that may be used, as it is now; an empty list when NVML fails."""
        if self._nvml is None:
            return []
        try:
            gpus = [self._gpu(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError as error:
            log.warning("The GPUs cannot be read: %s", error)
            return []
        return [gpu for gpu in gpus if self._may_use(gpu)]

    def _gpu(self, index: int) -> Gpu:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        uuid = self._nvml.nvmlDeviceGetUUID(handle)
        return Gpu(index, str(uuid), self._utilization(handle), int(memory.used), int(memory.total))

    def _utilization(self, handle: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._nvml.NVMLError:  # not supported on every GPU, and not under MIG
            return 0.0

    def _may_use(self, gpu: Gpu) -> bool:
        if self._allowed is None:
            return True
        return any(token == str(gpu.index) or _names(token, gpu) for token in self._allowed)


def place(gpus: Sequence[Gpu], used: Sequence[str], count: int = 1) -> list[Gpu]:
    """The GPUs for the next worker: those with the fewest of our workers, and of these the ones with most free memory.

    Args:
        used: the UUIDs of each present worker's GPUs.
        count: how many it needs; fewer are given where there are fewer.
    """
    return sorted(gpus, key=lambda gpu: (used.count(gpu.uuid), -gpu.memory_free))[:count]


def _initialized(nvml: Any) -> Any:
    try:
        library = nvml or importlib.import_module("pynvml")
        library.nvmlInit()
    except Exception as error:
        log.debug("No NVML: %s", error)
        return None
    return library


def _names(token: str, gpu: Gpu) -> bool:
    """CUDA takes a UUID by any beginning that is long enough."""
    return token.startswith("GPU-") and gpu.uuid.startswith(token)
