"""What the lines of a profile say of a step. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LAUNCHES = frozenset(
    {
        "cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch",
        "cudaMemcpyAsync", "cudaMemsetAsync", "cudaLaunchCooperativeKernel",
    }
)  # fmt: skip
"""What CUDA's runtime calls it when something is given to the device."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a profile: an operation, a call of CUDA's, or a kernel.

    Attributes:
        on_device: it is a kernel, or a copy, as the device saw it.
        seconds: its own.
    """

    name: str
    on_device: bool
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One run.

    Attributes:
        launches: calls that give the device something; on a CPU, operations of torch.
        kernels: what the device computed by them; a graph is one launch and many kernels.
        device_seconds: how long it worked; on a CPU, how long torch's operations took.
        seconds: the whole run, under the profiler, which slows it down.
    """

    launches: int
    kernels: int
    device_seconds: float
    seconds: float


def read(entries: Iterable[Entry], seconds: float, *, on_cuda: bool) -> Profile:
    """What the lines of a profile say."""
    lines = list(entries)
    work = [line for line in lines if line.on_device == on_cuda and (on_cuda or line.name.startswith("aten::"))]
    calls = [line for line in lines if line.name in LAUNCHES] if on_cuda else work
    kernels = sum(line.count for line in work)
    return Profile(sum(call.count for call in calls), kernels, sum(line.seconds for line in work), seconds)


def host_share(profile: Profile, step_seconds: float, *, on_cuda: bool) -> float:
    """The part of a step in which the device has nothing to do, between 0 and 1.

    On CUDA of a step as it runs without the profiler, which does not slow kernels down; on a CPU of the one under it.
    """
    whole = step_seconds if on_cuda else profile.seconds
    return min(1.0, max(0.0, 1 - profile.device_seconds / whole))
