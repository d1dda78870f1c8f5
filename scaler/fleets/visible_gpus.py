"""Which GPUs a user's CUDA_VISIBLE_DEVICES names. Pure: the devices come in as NVML tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from promptq.contract.errors import SettingsError

FASTEST_FIRST = "FASTEST_FIRST"


class Device(Protocol):
    """A GPU, or a MIG instance of one.

    Attributes:
        index: of the GPU, in the order of the PCI bus, as NVML counts.
        uuid: `GPU-…`, or `MIG-…` of an instance.
        kind: the product's name.
        parent: UUID of the GPU that it is an instance of; empty: it is a whole one.
        instance: of an instance, the ids of its GPU instance and its compute instance, as `7/0`.
    """

    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def parent(self) -> str: ...
    @property
    def instance(self) -> str: ...


Each = TypeVar("Each", bound=Device)


def visible(allowed: str | None, devices: Sequence[Each]) -> list[Each]:
    """The devices that are named, in NVML's order.

    A number counts GPUs along the PCI bus; of one that is divided it names all instances. As with CUDA, what comes
    behind a name that is of no device does not count, so `-1` ends the list.

    Args:
        allowed: numbers, UUIDs or beginnings of UUIDs, comma-separated; None: all devices.
    """
    if allowed is None:
        return list(devices)
    found: list[Each] = []
    for name in map(str.strip, allowed.split(",")):
        named = [device for device in devices if _is_named(name, device)]
        if len({device.parent or device.uuid for device in named}) != 1:  # none, or a beginning that several share
            break
        found += named
    return [device for device in devices if device in found]


def check_order(allowed: str | None, order: str | None, devices: Sequence[Device]) -> None:
    """Refuse numbers that mean one GPU to us and another one to CUDA.

    Args:
        order: the user's CUDA_DEVICE_ORDER.

    Raises:
        SettingsError: GPUs are to be counted by their speed, which NVML does not tell, and they are of several kinds.
    """
    kinds = {device.kind for device in devices}
    numbers = [name for name in (allowed or "").split(",") if name.strip().isdecimal()]
    if numbers and order == FASTEST_FIRST and len(kinds) > 1:
        raise SettingsError(
            f"CUDA_VISIBLE_DEVICES={allowed} with CUDA_DEVICE_ORDER={FASTEST_FIRST}: the GPUs are of several kinds "
            f"({', '.join(sorted(kinds))}); name them by UUID, or set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )


def _is_named(name: str, device: Device) -> bool:
    if name.isdecimal():
        return int(name) == device.index
    if name.startswith("MIG-GPU-"):  # as drivers before 470 have it
        return name == f"MIG-{device.parent}/{device.instance}"
    if name.startswith(("GPU-", "MIG-")):
        return device.uuid.startswith(name) or device.parent.startswith(name)
    return False
