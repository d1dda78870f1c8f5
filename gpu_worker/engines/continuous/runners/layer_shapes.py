"""What a model keeps of each token, and how long its rows may be."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin, get_layer_types_and_kwargs

from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.runners.model_runner import run
from promptq.contract.errors import EngineError

# Rotary positions whose frequencies transformers takes from the longest row of a step, once that is longer than this.
SWITCHING_ROPE = {"longrope": "original_max_position_embeddings", "dynamic": "max_position_embeddings"}

# What transformers calls layers that attend to the newest tokens alone.
WINDOWED = "sliding_attention"

NO_KEYS = "it keeps no keys and values"


@torch.inference_mode()
def layer_shapes(model: PreTrainedModel, context: int) -> list[LayerShape]:
    """What each layer keeps per token, found by running one token.

    Args:
        context: the most tokens of a row.

    Raises:
        EngineError: the model keeps something else than keys and values of all tokens, or what it computes depends on
            where the context ends.
    """
    _check_rope(model, context)
    zero = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    mask = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
    try:
        kept = getattr(run(model, zero, zero, mask, 1), "past_key_values", None)
    except Exception as error:
        reason = f"given a position and a 4D mask it fails: {first_line(error)}"
        raise EngineError(refusal(model, reason if _keeps_keys(model) else NO_KEYS)) from error
    if not isinstance(kept, Cache):
        raise EngineError(refusal(model, NO_KEYS))
    if not hasattr(kept, "layers"):
        raise EngineError(refusal(model, f"it keeps an {type(kept).__name__}"))
    kinds, _ = get_layer_types_and_kwargs(model.config.get_text_config())
    # Where layers share what they keep, which of them keeps it is not known.
    kinds = kinds if len(kinds) == len(kept.layers) else [""] * len(kept.layers)
    return [_layer_shape(layer, kind, model, context) for layer, kind in zip(kept.layers, kinds, strict=True)]


def _keeps_keys(model: PreTrainedModel) -> bool:
    return "past_key_values" in signature(model.forward).parameters


def refusal(model: PreTrainedModel, reason: str) -> str:
    """The one line for a model that cannot be batched."""
    return f"{type(model).__name__} cannot be run by this engine: {reason}; use another one, such as vllm"


def first_line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _layer_shape(layer: Any, kind: str, model: PreTrainedModel, context: int) -> LayerShape:
    if not issubclass(type(layer), DynamicLayer) or layer.keys is None:
        raise EngineError(refusal(model, f"its {type(layer).__name__} has no keys and values of each token"))
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        raise EngineError(refusal(model, f"its {type(layer).__name__} keeps more beside keys and values"))
    window = getattr(layer, "sliding_window", context)
    if kind != WINDOWED:  # in chunks, say, which have another mask
        _check_length(model, context, window, "attends to {} tokens only")
    keys, values = layer.keys, layer.values
    shapes = (keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])
    return LayerShape(*shapes, keys.dtype, kind, window if window < context else None)


def _check_rope(model: PreTrainedModel, context: int) -> None:
    for limit in rope_switches(model):
        _check_length(model, context, limit, "changes its rotary frequencies beyond {} tokens")


def rope_switches(model: PreTrainedModel) -> list[int]:
    """Lengths beyond which a step's longest row changes the rotary frequencies of all; most models have none."""
    config = model.config.get_text_config()
    switching = [(rope, SWITCHING_ROPE.get(rope.get("rope_type", ""))) for rope in _ropes(config)]
    return [rope.get(name) or config.max_position_embeddings for rope, name in switching if name]


def _ropes(config: Any) -> Iterator[dict[str, Any]]:
    """The parameters of the model's rotary positions: one set, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    yield from [each for each in parameters.values() if isinstance(each, dict)] or [parameters]


def _check_length(model: PreTrainedModel, context: int, limit: int, what: str) -> None:
    if limit < context:
        name = type(model).__name__
        raise EngineError(f"{name} {what.format(limit)}: set PROMPTQ_CONTEXT_LENGTH={limit} or less")
