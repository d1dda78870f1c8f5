"""Which exceptions say that the device is lost to this process, as once a CUDA kernel has failed, and which that its
memory is short. No torch here."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from promptq.contract.errors import EngineBroken

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# By their words: under torch they are RuntimeErrors of several classes, which differ between versions.
_LOST = re.compile(
    r"CUDA error|CUDA driver error|HIP error|cuDNN error|CUDNN_STATUS|CUBLAS_STATUS|NCCL error|device-side assert|"
    r"illegal memory access|misaligned address|unspecified launch failure|Triton Error"
)
_MEMORY = re.compile(r"out of memory|ALLOC_FAILED|can't allocate memory|cannot allocate memory", re.IGNORECASE)


def is_device_error(error: BaseException) -> bool:
    """Whether a device failed, and not for want of memory, which a smaller batch may have."""
    text = str(error)
    return (type(error).__name__ == "AcceleratorError" or bool(_LOST.search(text))) and not _MEMORY.search(text)


def is_memory_error(error: BaseException) -> bool:
    """Whether a device had too little memory, or the machine: with less to compute at once it may have enough."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or bool(_MEMORY.search(str(error)))


def ends_with_the_device(act: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """For what an engine does: an error of the device, wherever it shows, ends the engine. CUDA reports what failed
    with whatever is asked of it next, which need not have been at fault.
    """

    @wraps(act)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            if not is_device_error(error):
                raise
            raise EngineBroken(f"the device fails: {type(error).__name__}: {error}".splitlines()[0]) from error

    return guarded
