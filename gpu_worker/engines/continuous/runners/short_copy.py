"""Compares a runner with `generate` on a model's first layers in float32, for models in 16-bit formats: there rounding
hides small faults. What a runner assumes of a class holds in each number format and on each device, or in none.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kvcache.slots import SlotCache
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.layer_shapes import first_line, layer_shapes
from gpu_worker.engines.continuous.runners.load_check import SLOTS, difference

log = logging.getLogger(__name__)

FEWEST_LAYERS = 2
# Beyond this the longest row takes long on a CPU.
LONGEST_CONTEXT = 4096


def difference_in_float32(
    model: PreTrainedModel, make: Callable[[PreTrainedModel, SlotCache], Runner], context: int
) -> str | None:
    """What a runner computes otherwise than `generate` in the first layers, on the CPU; None: nothing, or they cannot
    be computed there.
    """
    context = min(context, LONGEST_CONTEXT)
    try:
        short = short_copy(model)
        cache = SlotCache(layer_shapes(short, context), max(SLOTS) + 1, context, short.device)
        return difference(short, make(short, cache), context)
    except Exception as error:
        log.info("%s is not compared in float32: %s", type(model).__name__, first_line(error))
        return None


def short_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy on the CPU in float32, of as many layers as show each kind of layer that the model has.

    Raises:
        ValueError: it is not to be seen where the layers are.
    """
    config = model.config.get_text_config()
    lists = [each for each in model.modules() if isinstance(each, nn.ModuleList)]
    layers = max(lists, key=len, default=nn.ModuleList())
    if len(layers) != config.num_hidden_layers:
        raise ValueError("its layers are not in one list")
    count = _count(layers, getattr(config, "layer_types", None) or [""] * len(layers))
    short: PreTrainedModel = _cut(model, layers, count).to("cpu", torch.float32)
    own = short.config.get_text_config()
    own.num_hidden_layers = count
    if getattr(own, "layer_types", None):
        own.layer_types = own.layer_types[:count]
    return short


def _count(layers: nn.ModuleList, types: list[str]) -> int:
    """How many layers it takes to see every kind: a type, and parameters' names and shapes."""
    kinds = [
        (type, *((name, parameter.shape) for name, parameter in layer.named_parameters()))
        for layer, type in zip(layers, types, strict=True)
    ]
    return max(FEWEST_LAYERS, *(kinds.index(kind) + 1 for kind in kinds))


def _cut(model: Any, layers: nn.ModuleList, count: int) -> Any:
    """A copy with the first layers alone; the others are never copied."""
    whole = layers._modules
    layers._modules = dict(islice(whole.items(), count))
    try:
        return copy.deepcopy(model)
    finally:
        layers._modules = whole
