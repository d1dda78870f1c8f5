"""CUDA_VISIBLE_DEVICES as CUDA reads it, MIG instances included."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from promptq.contract.errors import SettingsError
from scaler.fleets.gpus import Gpu, Gpus
from scaler.fleets.visible_gpus import check_order, visible
from tests.unit.scaler.test_assembly import launched
from tests.unit.scaler.test_scaler_parts import FakeNvml

WHOLE = Gpu(0, "GPU-aa1", 0, 0, 1, "A100")
PARTS = [Gpu(1, f"MIG-b{part}", 0, 0, 1, "A100 MIG", "GPU-aa2", f"{part}/0") for part in (7, 8)]
OTHER = Gpu(2, "GPU-c", 0, 0, 1, "H100")
ALL = [WHOLE, *PARTS, OTHER]


@pytest.mark.parametrize(
    ("allowed", "named"),
    [
        (None, ALL),
        ("2,0", [WHOLE, OTHER]),
        ("1", PARTS),
        ("GPU-c", [OTHER]),
        ("GPU-aa2", PARTS),
        ("GPU-aa", []),  # two begin so
        ("MIG-b8", [PARTS[1]]),
        ("MIG-b", PARTS),
        ("MIG-GPU-aa2/7/0", [PARTS[0]]),
        ("MIG-GPU-aa2/9/0", []),
        ("0,-1,2", [WHOLE]),
        ("0,9,2", [WHOLE]),
        ("NoDevFiles", []),
        ("", []),
    ],
)
def test_what_is_named_is_visible(allowed: str | None, named: list[Gpu]) -> None:
    assert visible(allowed, ALL) == named


def test_numbers_by_speed_are_refused_where_they_could_mean_two_gpus() -> None:
    with pytest.raises(SettingsError, match=r"^CUDA_VISIBLE_DEVICES=0,GPU-c with .*A100, H100.* by UUID"):
        check_order("0,GPU-c", "FASTEST_FIRST", [WHOLE, OTHER])
    check_order("0", "PCI_BUS_ID", [WHOLE, OTHER])
    check_order("0", None, [WHOLE, OTHER])
    check_order("GPU-c", "FASTEST_FIRST", [WHOLE, OTHER])
    check_order(None, "FASTEST_FIRST", [WHOLE, OTHER])
    check_order("0", "FASTEST_FIRST", [WHOLE, WHOLE])


class DividedNvml(FakeNvml):
    """The second GPU is divided: it has places for three instances, and two of them."""

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        return [int(handle == 1), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> str:
        if number == 1:
            raise self.NVMLError("not found")
        return f"{handle}{number}"

    def nvmlDeviceGetGpuInstanceId(self, part: str) -> int:
        return 7 + int(part[1])

    def nvmlDeviceGetComputeInstanceId(self, part: str) -> int:
        return 0

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return f"MIG-{handle}" if isinstance(handle, str) else super().nvmlDeviceGetUUID(handle)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> SimpleNamespace:
        return SimpleNamespace(used=1, total=4)


def test_instances_stand_for_the_gpu_that_is_divided() -> None:
    gpus = Gpus("1", DividedNvml()).read()
    assert [(gpu.uuid, gpu.parent, gpu.label, gpu.memory_free) for gpu in gpus] == [
        ("MIG-10", "GPU-1abc", "1/7/0", 3),
        ("MIG-12", "GPU-1abc", "1/9/0", 3),
    ]


def test_workers_count_gpus_as_nvml_does_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert launched(1).environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert launched(1).environment["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"
