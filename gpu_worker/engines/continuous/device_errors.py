"""Which exceptions say that the device is lost to this process, as once a CUDA kernel has failed, and which that its
memory is short. No torch here."""

from __future__ import annotations

import re

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
