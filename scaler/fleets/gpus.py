"""The GPUs of this machine: what they are, how busy, and where the next worker goes."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaler.fleets.visible_gpus import check_order, visible

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment, or one MIG instance. Memory is in bytes; `utilization` is a share from 0 to 1.

    Attributes:
        index, uuid, kind, parent, instance: see `visible_gpus.Device`.
    """

    index: int
    uuid: str
    utilization: float
    memory_used: int
    memory_total: int
    kind: str = ""
    parent: str = ""
    instance: str = ""

    @property
    def memory_free(self) -> int:
        """Bytes not in use."""
        return self.memory_total - self.memory_used

    @property
    def label(self) -> str:
        """What people call it: `0`, or `0/7/0` of an instance."""
        return f"{self.index}/{self.instance}" if self.instance else str(self.index)


class Gpus:
    """Reads the GPUs through NVML; without NVML there are none.

    Args:
        allowed: the user's CUDA_VISIBLE_DEVICES; see `visible_gpus.visible`.
        nvml: the `pynvml` module, or a stand-in.
    """

    def __init__(self, allowed: str | None = None, nvml: Any = None) -> None:
        self._allowed = allowed
        self._nvml = _initialized(nvml)

    def read(self) -> list[Gpu]:
        """Every GPU that may be used, as it is now; an empty list when NVML fails."""
        return visible(self._allowed, self._all())

    def check_order(self, order: str | None) -> None:
        """See `visible_gpus.check_order`.

        Raises:
            SettingsError: the user's numbers say too little.
        """
        check_order(self._allowed, order, self._all())

    def _all(self) -> list[Gpu]:
        if self._nvml is None:
            return []
        try:
            return [gpu for index in range(self._nvml.nvmlDeviceGetCount()) for gpu in self._parts(index)]
        except self._nvml.NVMLError as error:
            log.warning("The GPUs cannot be read: %s", error)
            return []

    def _parts(self, index: int) -> Iterator[Gpu]:
        """The GPU itself or, where it is divided, its instances: no program can use it as a whole then."""
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        if not self._is_divided(handle):
            yield self._gpu(index, handle)
            return
        for number in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(self._nvml.NVMLError):  # a place without an instance
                part = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                ids = self._nvml.nvmlDeviceGetGpuInstanceId(part), self._nvml.nvmlDeviceGetComputeInstanceId(part)
                parent = str(self._nvml.nvmlDeviceGetUUID(handle))
                yield replace(self._gpu(index, part), parent=parent, instance="/".join(map(str, ids)))

    def _is_divided(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0])
        except self._nvml.NVMLError:  # most kinds have no such mode
            return False

    def _gpu(self, index: int, handle: Any) -> Gpu:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        uuid, kind = self._nvml.nvmlDeviceGetUUID(handle), self._nvml.nvmlDeviceGetName(handle)
        return Gpu(index, str(uuid), self._utilization(handle), int(memory.used), int(memory.total), str(kind))

    def _utilization(self, handle: Any) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._nvml.NVMLError:  # not supported on every GPU, and not under MIG
            return 0.0


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
