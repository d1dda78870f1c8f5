"""What the engine says of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from gpu_worker.engines.base import Capabilities, EngineInfo
from gpu_worker.engines.continuous.able import capabilities
from gpu_worker.engines.continuous.encoder.engine import ABLE
from gpu_worker.engines.continuous.loading.fingerprint import model_fingerprint, model_identity
from gpu_worker.engines.continuous.text.prompts import PromptEncoder, tokenizer_json
from gpu_worker.engines.continuous.text.special_tokens import SpecialTokens
from gpu_worker.engines.vllm.adapters import Adapters
from promptq.contract.settings import WorkerSettings


def describe(
    settings: WorkerSettings, core: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, adapters: Adapters
) -> EngineInfo:
    """The engine, for the worker's registration.

    Args:
        core: vLLM's LLMEngine.
        folder: of the model's files.
    """
    tools = PromptEncoder(tokenizer, SpecialTokens.of(tokenizer)).knows_tools
    able = capabilities(tools=tools, adapters=bool(adapters))
    blocks = {"kv_blocks": str(core.vllm_config.cache_config.num_gpu_blocks)}
    return _info(settings, core, tokenizer, folder, able, blocks, adapters.fingerprint())


def describe_embeddings(
    settings: WorkerSettings, core: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, size: int
) -> EngineInfo:
    """Likewise the engine of a model that embeds, with so many numbers."""
    return _info(settings, core, tokenizer, folder, ABLE, {"embedding": str(size)})


def _info(
    settings: WorkerSettings,
    core: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    able: Capabilities,
    details: dict[str, str],
    adapters: str = "",
) -> EngineInfo:
    import vllm

    config = core.vllm_config
    dtype = str(config.model_config.dtype).removeprefix("torch.")
    context = int(config.model_config.max_model_len)
    base = model_identity(model_fingerprint(folder), context, dtype)
    return EngineInfo(
        settings.model_name,
        str(config.device_config.device_type),
        dtype,
        int(config.scheduler_config.max_num_seqs),
        context,
        {"vllm": vllm.__version__, **details},
        tokenizer_json(tokenizer),
        able,
        _identity(base, vllm.__version__, settings, adapters),
    )


def _identity(base: str, version: str, settings: WorkerSettings, adapters: str) -> str:
    """SHA-256 (hex) over all that decides a text: the continuous engine's texts differ at near-ties, so may these."""
    options = json.dumps(dict(settings.entry.options), sort_keys=True, default=str)
    parts = ("vllm", version, base, options, adapters)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
