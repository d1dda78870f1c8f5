"""Small random models as folders, and engines of vLLM on them. Only where vLLM is installed: in .venvs/vllm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gpu_worker.engines.base import Engine
from gpu_worker.engines.registry import create_engine
from promptq.contract.catalogue import Catalogue, ModelEntry
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_engines import CONTEXT, SHAPE, byte_tokenizer

# vLLM's attention on a CPU wants heads of 32 numbers or more.
WIDE: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": CONTEXT,
}  # fmt: skip


def saved(folder: Path, model: Any) -> Path:
    """The model and the byte tokenizer, as a folder that any engine loads."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def tiny_llama(folder: Path) -> Path:
    """A random Llama of a few thousand weights."""
    torch.manual_seed(7)
    return saved(folder, LlamaForCausalLM(LlamaConfig(**WIDE, **SHAPE)).eval())


def vllm_settings(
    source: Path | str, data: Path, slots: int = 4, context: int = CONTEXT, **entry: Any
) -> WorkerSettings:
    """Those of a worker that serves this model; without torch.compile, whose time tiny models do not earn."""
    options = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28} | entry.pop("options", {})
    fields: dict[str, Any] = {"engine": "vllm", "model": str(source), "data_dir": data, "slots": slots}
    settings = WorkerSettings(_env_file=None, context_length=context, worker_threads=1, **fields)
    settings.serve(Catalogue.of([ModelEntry(name="tiny", source=str(source), engine="vllm", options=options, **entry)]))
    return settings


def vllm_engine(source: Path | str, data: Path, **entry: Any) -> Engine:
    """Started."""
    return create_engine(vllm_settings(source, data, **entry))
