"""Small random models as folders, and engines of vLLM on them. Only where vLLM is installed: in .venvs/vllm."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

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

STARTED: list[Any] = []


def saved(folder: Path, model: Any, chat_template: str | None = None) -> Path:
    """The model and the byte tokenizer, as a folder that any engine loads."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_llama(folder: Path) -> Path:
    """A random Llama of a few thousand weights."""
    return saved(folder, tiny("llama"))


def vllm_settings(
    source: Path | str, data: Path, slots: int = 4, context: int = CONTEXT, prefill_tokens: int = 0, **entry: Any
) -> WorkerSettings:
    """Those of a worker that serves this model; without torch.compile, whose time tiny models do not earn."""
    options = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28} | entry.pop("options", {})
    fields: dict[str, Any] = {"engine": "vllm", "model": str(source), "data_dir": data, "slots": slots}
    fields |= {"context_length": context, "prefill_tokens": prefill_tokens}
    settings = WorkerSettings(_env_file=None, worker_threads=1, **fields)
    settings.serve(Catalogue.of([ModelEntry(name="tiny", source=str(source), engine="vllm", options=options, **entry)]))
    return settings


def vllm_engine(source: Path | str, data: Path, slots: int = 4, **entry: Any) -> Engine:
    """Started. vLLM has one state for a process, so the engine before it is taken down: a worker's goes with it."""
    while STARTED:
        STARTED.pop().engine_core.shutdown()
    engine: Any = create_engine(vllm_settings(source, data, slots, **entry))
    STARTED.append(engine._embedder._core if engine.info.capabilities.embeddings else engine._core)
    return engine


def tiny(name: str, context: int = CONTEXT) -> Any:
    """A random model of a class that vLLM knows, and whose shape is its own."""
    torch.manual_seed(7)
    shape = WIDE | SHAPE | {"max_position_embeddings": context}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
    configs = {
        "llama": lambda: (LlamaForCausalLM, LlamaConfig(**shape)),
        "qwen3": lambda: (Qwen3ForCausalLM, Qwen3Config(**shape)),
        "gemma3": lambda: (Gemma3ForCausalLM, Gemma3TextConfig(**shape, sliding_window=16)),
        "qwen3_moe": lambda: (Qwen3MoeForCausalLM, Qwen3MoeConfig(**shape, **experts)),
        "mixtral": lambda: (MixtralForCausalLM, MixtralConfig(**shape, num_local_experts=4)),
    }
    of, config = configs[name]()
    return of(config).eval()


def lora(folder: Path, model: Any, rank: int = 4) -> Any:
    """Write a random LoRA adapter as PEFT has it; returns the model with the adapter's weights merged into its own."""
    torch.manual_seed(11)
    folder.mkdir(parents=True)
    weights, merged = {}, copy.deepcopy(model)
    for name, module in merged.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            down, up = torch.randn(rank, module.in_features), torch.randn(module.out_features, rank)
            weights[f"base_model.model.{name}.lora_A.weight"] = down
            weights[f"base_model.model.{name}.lora_B.weight"] = up
            module.weight.data += 2.0 * up @ down
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
              "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "tiny"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged
