"""What vLLM is told: its arguments and its environment, from the settings and the model's entry. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import psutil

from gpu_worker.engines.continuous.encoder.recipe import PoolingMode, Recipe
from gpu_worker.engines.vllm.adapters import Adapters
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings

CHOICES: Final = "gpu_worker.engines.vllm.choices:RequestChoices"
OURS: Final = frozenset({
    "model", "tokenizer", "skip_tokenizer_init", "runner", "convert", "revision", "seed", "logits_processors",
    "max_num_seqs", "scheduling_policy", "enable_lora", "disable_log_stats", "data_parallel_size", "stream_interval",
    "speculative_config", "additional_config", "max_logprobs", "logprobs_mode", "generation_config",
})  # fmt: skip
"""Arguments that the settings say, or that the engine's promises depend on."""
OURS_EMBEDDING: Final = OURS | {"pooler_config", "enable_prefix_caching"}
"""Likewise where the model embeds."""
POOLING: Final[Mapping[PoolingMode, str]] = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}
"""What vLLM calls them."""
CPU_KV_BYTES: Final = 4 * 2**30
SLOTS: Final = {"cpu": 64}
MANY_SLOTS: Final = 256


ENVIRONMENT: Final = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
"""What vLLM is to read at its import: its core runs in this process, so that nothing is left of a killed worker,
on the model runner that takes logits processors of our kind."""


def environment() -> dict[str, str]:
    """What it reads besides, where the operator has not set it.

    Its log goes where ours does. Threads are not bound: several workers would be bound to the same cores.
    """
    return {
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


def engine_arguments(settings: WorkerSettings, source: str | Path, adapters: Adapters) -> dict[str, Any]:
    """Those of vLLM's EngineArgs; the entry's `options` have the last word where they may.

    Raises:
        EngineError: an option that vLLM does not know or that is not free, or a device that this vLLM is not for.
    """
    device = _checked_device(settings, OURS)
    choices = {"logits_processors": [CHOICES]}
    given = _from_settings(settings, source, device) | _always() | choices | adapters.arguments(device)
    return given | dict(settings.entry.options)


def embedding_arguments(
    settings: WorkerSettings, source: str | Path, recipe: Recipe, config: Any, context: int
) -> dict[str, Any]:
    """Likewise those for a model that embeds.

    Nothing of a prompt is kept for others: so what a row gives does not depend on the rows before it.

    Args:
        config: the model's, of transformers.
        context: the most tokens of a prompt.

    Raises:
        EngineError: also for what the model's files ask for, and vLLM cannot do.
    """
    if settings.entry.adapters:
        raise EngineError("adapters: a model that embeds has none")
    if recipe.pooling not in POOLING:
        raise EngineError(f"pooling: {recipe.pooling} is not supported by vLLM: only {', '.join(POOLING)}")
    given = _from_settings(settings, source, _checked_device(settings, OURS_EMBEDDING)) | _always()
    if "max_num_batched_tokens" in given:  # an encoder's prompt has to fit into one step
        given["max_num_batched_tokens"] = max(given["max_num_batched_tokens"], context)
    options = dict(settings.entry.options)
    overrides = _unwritten(config) | options.pop("hf_overrides", {})
    pooler = {"seq_pooling_type": POOLING[recipe.pooling], "use_activation": recipe.normalize}
    ours = {"runner": "pooling", "pooler_config": pooler, "enable_prefix_caching": False, "hf_overrides": overrides}
    return given | ours | {"max_model_len": context} | options


def _unwritten(config: Any) -> dict[str, Any]:
    """What vLLM reads of a configuration, and transformers no longer writes."""
    is_silent = config.model_type == "xlm-roberta" and not hasattr(config, "position_embedding_type")
    return {"position_embedding_type": "absolute"} if is_silent else {}


def _checked_device(settings: WorkerSettings, ours: Set[str]) -> str:
    """What the installed vLLM is for, where it and the entry's options are what was asked for."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    device = str(current_platform.device_type)
    check_device(settings.device, device)
    check_options(settings.entry.options, {field.name for field in fields(EngineArgs)}, ours)
    return device


def check_options(options: Mapping[str, Any], known: Set[str], ours: Set[str] = OURS) -> None:
    """Refuse what vLLM does not know and what is not for the operator to choose.

    Raises:
        EngineError: names the option.
    """
    for name in options:
        if name not in known:
            raise EngineError(f"options.{name}: vLLM's EngineArgs has no such argument")
        if name in ours:
            raise EngineError(f"options.{name}: promptq sets it itself")


def check_device(asked: str, device: str) -> None:
    """Refuse a device that the installed vLLM is not built for.

    Raises:
        EngineError: names it.
    """
    kind, _, index = asked.partition(":")
    if index:
        raise EngineError(f"PROMPTQ_DEVICE={asked}: vLLM takes the first that it sees; set CUDA_VISIBLE_DEVICES")
    if kind not in ("auto", device):
        raise EngineError(f"PROMPTQ_DEVICE={asked}: the installed vLLM is for {device or 'no device here'}")


def _from_settings(settings: WorkerSettings, source: str | Path, device: str) -> dict[str, Any]:
    slots = SLOTS.get(device, MANY_SLOTS) if settings.slots == "auto" else settings.slots
    dtype = "float32" if (settings.dtype, device) == ("auto", "cpu") else settings.dtype
    given: dict[str, Any] = {"model": str(source), "dtype": dtype, "max_num_seqs": slots}
    if settings.model_revision:
        given |= {"revision": settings.model_revision, "tokenizer_revision": settings.model_revision}
    if settings.prefill_tokens:
        given["max_num_batched_tokens"] = max(settings.prefill_tokens, slots)
    return given | _context(settings, source) | memory(settings, device) | over_gpus(settings.entry.gpus)


def _context(settings: WorkerSettings, source: str | Path) -> dict[str, Any]:
    """The most tokens of a row: the setting, or the model's own limit if that is less; 0: that limit."""
    from transformers import AutoConfig

    revision = {"revision": settings.model_revision} if settings.model_revision else {}
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **revision).get_text_config()
    except Exception:  # vLLM may know it where transformers does not
        return {"max_model_len": settings.context_length} if settings.context_length else {}
    limits = [length for length in (settings.context_length, getattr(config, "max_position_embeddings", 0)) if length]
    return {"max_model_len": min(limits)} if limits else {}


def over_gpus(gpus: int | None) -> dict[str, Any]:
    """A worker that is placed on several GPUs has its model on all of them."""
    return {"tensor_parallel_size": gpus} if gpus and gpus > 1 else {}


def memory(settings: WorkerSettings, device: str) -> dict[str, Any]:
    """What vLLM may take. On a CPU it would take most of the machine's for keys and values."""
    if device == "cpu":
        return {"kv_cache_memory_bytes": min(CPU_KV_BYTES, psutil.virtual_memory().available // 4)}
    return {"gpu_memory_utilization": settings.gpu_memory_share}


def _always() -> dict[str, Any]:
    return {
        "scheduling_policy": "priority",
        "generation_config": "vllm",  # what it asks of draws is the requests' to say, see model_rules
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
