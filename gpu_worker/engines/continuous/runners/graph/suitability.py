"""Where the runner for CUDA graphs is of use. A pure decision: facts in, a reason out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.runners.packed_model import is_known

FORMATS = (torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)
# Flash attention takes heads of up to so many numbers, in multiples of the other.
MOST_HEAD_SIZE = 256
HEAD_SIZE_STEP = 8


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision goes by.

    Attributes:
        device: type of the device.
        capability: of the GPU; (0, 0) elsewhere.
        has_flash: whether this build of torch has flash attention.
        head_size: numbers of a head.
        is_known: whether the model is one whose layers are known.
        has_windows: whether some layers attend to the newest tokens alone.
    """

    device: str
    dtype: torch.dtype
    capability: tuple[int, int]
    has_flash: bool
    head_size: int
    is_known: bool
    has_windows: bool


def facts_of(model: PreTrainedModel, shapes: Sequence[LayerShape]) -> Facts:
    """The facts of one model, of whose layers these are the shapes."""
    on_cuda = model.device.type == "cuda"
    return Facts(
        model.device.type,
        model.dtype,
        torch.cuda.get_device_capability(model.device) if on_cuda else (0, 0),
        torch.backends.cuda.is_flash_attention_available(),
        shapes[0].key[1],
        is_known(model),
        any(shape.window is not None for shape in shapes),
    )


def why_not_on_cuda(facts: Facts) -> str:
    """Why flash attention and CUDA graphs do not serve here; an empty string: they do."""
    if facts.device != "cuda":
        return f"the device is {facts.device}"
    if facts.dtype not in FORMATS:
        return f"flash attention has no {facts.dtype}"
    if facts.capability < LEAST_CAPABILITY:
        return "flash attention needs compute capability {}.{}, and this GPU has {}.{}".format(
            *LEAST_CAPABILITY, *facts.capability
        )
    if not facts.has_flash:
        return "this build of torch has no flash attention"
    if facts.head_size > MOST_HEAD_SIZE or facts.head_size % HEAD_SIZE_STEP:
        return f"flash attention has no heads of {facts.head_size} numbers"
    return why_not_anywhere(facts)


def why_not_anywhere(facts: Facts) -> str:
    """Why its steps cannot be computed as GraphModel does, on any device; an empty string: they can."""
    if not facts.is_known:
        return "its architecture is not one that is known here"
    return "some of its layers attend to a window" if facts.has_windows else ""
