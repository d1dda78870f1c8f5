"""Small random models of many of transformers' architectures, and how the engine takes each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

CONTEXT = 128
# Shorter than the context, and than some prompts.
WINDOW = 40
TOKENS = {"vocab_size": 257, "bos_token_id": 0, "eos_token_id": 256, "pad_token_id": 1}
SHAPE: dict[str, Any] = TOKENS | {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip
GROUPED = SHAPE | {"num_key_value_heads": 2, "head_dim": 8}
FEW_HEADS = SHAPE | {"num_key_value_heads": 2}
GPT = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
ROUTED = {
    "n_group": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "topk_group": 1,
}  # fmt: skip
DEEPSEEK = SHAPE | ROUTED | {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT_NEO = TOKENS | {
    "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": CONTEXT,
    "attention_types": [[["global", "local"], 1]],
}  # fmt: skip
DELTAS = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
PER_LAYER: dict[str, Any] = {"vocab_size_per_layer_input": 257, "hidden_size_per_layer_input": 8}
GEMMA3N: dict[str, Any] = GROUPED | PER_LAYER | {
    "num_hidden_layers": 4, "intermediate_size": [48] * 4, "altup_num_inputs": 2, "laurel_rank": 4,
    "activation_sparsity_pattern": [0.0] * 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
STATES = TOKENS | {"hidden_size": 32, "num_hidden_layers": 2}


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    """Rotary positions of a kind."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0} | fields}


LONG_ROPE = rope(
    "longrope", factor=2.0, original_max_position_embeddings=WINDOW,
    short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[2.0, 3.0, 4.0, 5.0],
)  # fmt: skip
PHI3_LONG = GROUPED | LONG_ROPE | {"original_max_position_embeddings": WINDOW}


@dataclass(frozen=True)
class Case:
    """A model, and how the engine takes it.

    Attributes:
        family: its name in transformers, without Config.
        fields: of its config.
        runner: that computes it; empty: it is refused.
        refused: what the line says that refuses it.
        context: the most tokens of a row.
    """

    family: str
    fields: dict[str, Any] = field(default_factory=lambda: GROUPED)
    runner: str = "ModelRunner"
    refused: str = ""
    context: int = CONTEXT


def packed(family: str, **fields: Any) -> Case:
    """A model for PackedRunner."""
    return Case(family, GROUPED | fields, "PackedRunner")


def windowed(family: str, **fields: Any) -> Case:
    """A model some or all of whose layers attend to a window that is shorter than the context."""
    return Case(family, GROUPED | {"sliding_window": WINDOW} | fields)


def refused(family: str, fields: dict[str, Any], why: str) -> Case:
    """A model that is refused for a reason."""
    return Case(family, fields, "", why)


WINDOWED = f"attends to {WINDOW} tokens only: set PROMPTQ_CONTEXT_LENGTH={WINDOW} or less"
SWITCHES = f"frequencies beyond {WINDOW} tokens: set PROMPTQ_CONTEXT_LENGTH={WINDOW} or less"
NO_KEYS = "keeps no keys and values"
CASES: dict[str, Case] = {
    "llama": packed("Llama"),
    "llama, biases of the MLP": packed("Llama", mlp_bias=True),
    "llama, biases of attention": packed("Llama", attention_bias=True),
    "llama, large heads": packed("Llama", head_dim=16),
    "llama, tied": packed("Llama", tie_word_embeddings=True),
    "llama, linear rope": packed("Llama", **rope("linear", factor=4.0)),
    "llama, dynamic rope": packed("Llama", **rope("dynamic", factor=4.0)),
    "llama, yarn": packed("Llama", **rope("yarn", factor=4.0, original_max_position_embeddings=24)),
    "llama, llama3 rope": packed("Llama", **rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama, half of each head turned": refused("Llama", GROUPED | rope(
        "linear", factor=4.0, partial_rotary_factor=0.5), "The size of tensor"),
    "llama, longrope": refused("Llama", GROUPED | LONG_ROPE, SWITCHES),
    "llama, gelu": Case("Llama", GROUPED | {"hidden_act": "gelu"}),
    "mistral": packed("Mistral", sliding_window=None),
    "mistral, window": windowed("Mistral"),
    "mistral, within its window": Case("Mistral", GROUPED | {"sliding_window": WINDOW}, "PackedRunner", "", WINDOW),
    "qwen2": packed("Qwen2"),
    "qwen2, window in some layers": windowed("Qwen2", use_sliding_window=True, max_window_layers=1),
    "qwen3, window in some layers": windowed("Qwen3", use_sliding_window=True, max_window_layers=1),
    "qwen3": packed("Qwen3"),
    "qwen3, biases and large heads": packed("Qwen3", attention_bias=True, head_dim=16),
    "qwen3, yarn": packed("Qwen3", **rope("yarn", factor=4.0, original_max_position_embeddings=24)),
    "gemma": Case("Gemma"),
    "gemma2": Case("Gemma2", GROUPED | {"sliding_window": CONTEXT}),
    "gemma2, window": windowed("Gemma2"),
    "gemma3": Case("Gemma3Text", GROUPED | {"sliding_window": CONTEXT}),
    "gemma3, window": windowed("Gemma3Text", layer_types=["sliding_attention", "full_attention"]),
    "gemma3, window and a rope of each kind": windowed("Gemma3Text", num_hidden_layers=3, layer_types=[
        "sliding_attention", "sliding_attention", "full_attention"], rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}),
    "gemma3, within its window": Case("Gemma3Text", GROUPED | {"sliding_window": WINDOW}, context=WINDOW),
    "gemma3n": Case("Gemma3nText", GEMMA3N | {"num_kv_shared_layers": 0, "sliding_window": WINDOW}),
    "gemma3n, shared keys": refused("Gemma3nText", GEMMA3N | {
        "num_kv_shared_layers": 2}, "keys and values of each token"),
    "gemma4": windowed("Gemma4Text", **PER_LAYER, global_head_dim=8, num_kv_shared_layers=0, layer_types=[
        "sliding_attention", "full_attention"]),
    "phi": Case("Phi", SHAPE | {"partial_rotary_factor": 0.5}),
    "phi3": packed("Phi3", sliding_window=None),
    "phi3, half of each head turned": Case("Phi3", GROUPED | {"partial_rotary_factor": 0.5}),
    "phi3, window": windowed("Phi3"),
    "phi3, longrope": refused("Phi3", PHI3_LONG, SWITCHES),
    "phi3, before its switch": Case("Phi3", PHI3_LONG, "PackedRunner", "", WINDOW),
    "gpt2": Case("GPT2", GPT),
    "gpt-neo": Case("GPTNeo", GPT_NEO | {"window_size": CONTEXT}),
    "gpt-neo, window": refused("GPTNeo", GPT_NEO | {"window_size": WINDOW}, "beside other rows"),
    "gpt-neo, window beyond the check": refused("GPTNeo", GPT_NEO | {"window_size": 100}, "beside other rows"),
    "gpt-neox": Case("GPTNeoX", SHAPE | {"rotary_pct": 0.5}),
    "gpt-neox japanese": Case("GPTNeoXJapanese", SHAPE),
    "gpt-j": Case("GPTJ", GPT | {"rotary_dim": 4}),
    "gpt-bigcode": Case("GPTBigCode", GPT),
    "codegen": Case("CodeGen", GPT | {"n_ctx": CONTEXT, "rotary_dim": 4}),
    "opt": Case("OPT", SHAPE | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": refused("Bloom", TOKENS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "4D mask"),
    "falcon": Case("Falcon", SHAPE | {"alibi": False}),
    "falcon, alibi": refused("Falcon", SHAPE | {"alibi": True}, "4D mask"),
    "mpt": Case("Mpt", TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT}),
    "stablelm": Case("StableLm", FEW_HEADS | {"partial_rotary_factor": 0.5, "use_qkv_bias": True}),
    "starcoder2": Case("Starcoder2", FEW_HEADS | {"sliding_window": None}),
    "starcoder2, window": Case("Starcoder2", FEW_HEADS | {"sliding_window": WINDOW}),
    "cohere": Case("Cohere", GROUPED | {"logit_scale": 0.5}),
    "cohere2": Case("Cohere2", GROUPED | {"logit_scale": 0.5, "sliding_window": CONTEXT}),
    "cohere2, window": windowed("Cohere2", logit_scale=0.5),
    "olmo": Case("Olmo"),
    "olmo2": Case("Olmo2"),
    "olmo3": Case("Olmo3", GROUPED | {"sliding_window": CONTEXT}),
    "olmo3, window": windowed("Olmo3", layer_types=["sliding_attention", "full_attention"]),
    "granite": Case("Granite", GROUPED | {
        "residual_multiplier": 0.5, "attention_multiplier": 0.3, "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    "ministral": windowed("Ministral", layer_types=["sliding_attention", "full_attention"]),
    "ministral3": Case("Ministral3", GROUPED | rope(
        "yarn", factor=4.0, original_max_position_embeddings=32, llama_4_scaling_beta=0.1)),
    "mixtral, window": windowed("Mixtral", **LOCAL_EXPERTS),
    "mixtral": Case("Mixtral", GROUPED | LOCAL_EXPERTS | {"sliding_window": None}),
    "qwen2-moe": Case("Qwen2Moe", GROUPED | EXPERTS | {"shared_expert_intermediate_size": 16}),
    "qwen3-moe": Case("Qwen3Moe", GROUPED | EXPERTS),
    "olmoe": Case("Olmoe", FEW_HEADS | {"num_experts": 4, "num_experts_per_tok": 2}),
    "granite-moe": Case("GraniteMoe", FEW_HEADS | LOCAL_EXPERTS),
    "phi-moe": Case("Phimoe", FEW_HEADS | LOCAL_EXPERTS | {"sliding_window": None}),
    "gpt-oss": Case("GptOss", GROUPED | LOCAL_EXPERTS | {"sliding_window": CONTEXT}),
    "gpt-oss, window": windowed("GptOss", **LOCAL_EXPERTS),
    "llama4": Case("Llama4Text", GROUPED | {
        "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": CONTEXT}),
    "llama4, chunks": refused("Llama4Text", GROUPED | {
        "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": WINDOW}, WINDOWED),
    "deepseek-v2": Case("DeepseekV2", DEEPSEEK),
    "deepseek-v3": Case("DeepseekV3", DEEPSEEK),
    "xglm": Case("XGLM", TOKENS | {
        "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": CONTEXT}),
    "persimmon": Case("Persimmon", SHAPE),
    "nemotron": Case("Nemotron"),
    "glm": Case("Glm"),
    "glm4": Case("Glm4"),
    "glm4-moe": Case("Glm4Moe", GROUPED | ROUTED),
    "dots1": Case("Dots1", GROUPED | ROUTED | {"n_shared_experts": 1}),
    "flex-olmo": Case("FlexOlmo", FEW_HEADS | {"num_experts": 4, "num_experts_per_tok": 2}),
    "bitnet": Case("BitNet", FEW_HEADS),
    "helium": Case("Helium"),
    "smollm3": Case("SmolLM3", GROUPED | {"no_rope_layers": [1, 0]}),
    "seed-oss": packed("SeedOss"),
    "ernie": Case("Ernie4_5"),
    "hunyuan": Case("HunYuanDenseV1"),
    "exaone4, window": windowed("Exaone4", layer_types=["sliding_attention", "full_attention"]),
    "exaone4": Case("Exaone4", GROUPED | {
        "sliding_window": CONTEXT, "layer_types": ["sliding_attention", "full_attention"]}),
    "arcee": Case("Arcee"),
    "apertus": Case("Apertus"),
    "diffllama": Case("DiffLlama"),
    "biogpt": Case("BioGpt", SHAPE),
    "bert": Case("Bert", SHAPE | {"is_decoder": True}),
    "bert, in both directions": refused("Bert", SHAPE, NO_KEYS),
    "ctrl": Case("CTRL", GPT | {"dff": 48}),
    "bart": refused("Bart", TOKENS | {
        "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
        "max_position_embeddings": CONTEXT}, "keys and values of each token"),
    "minimax": refused("MiniMax", GROUPED | {"num_local_experts": 2}, "MiniMax uses cache of its own"),
    "mamba": refused("Mamba", STATES | {"state_size": 4}, NO_KEYS),
    "mamba2": refused("Mamba2", STATES | {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1}, NO_KEYS),
    "falcon-mamba": refused("FalconMamba", STATES | {"state_size": 4}, NO_KEYS),
    "rwkv": refused("Rwkv", STATES, NO_KEYS),
    "recurrent-gemma": refused("RecurrentGemma", GROUPED | {"attention_window_size": WINDOW}, NO_KEYS),
    "openai-gpt": refused("OpenAIGPT", GPT, NO_KEYS),
    "xlnet": refused("XLNet", TOKENS | {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, NO_KEYS),
    "jamba": refused("Jamba", FEW_HEADS | {
        "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
        "keys and values of each token"),
    "qwen3-next": refused("Qwen3Next", GROUPED | EXPERTS | DELTAS | {
        "shared_expert_intermediate_size": 16}, "keys and values of each token"),
    "qwen3.5": refused("Qwen3_5Text", GROUPED | DELTAS, "keys and values of each token"),
    "bamba": refused("Bamba", FEW_HEADS | MAMBA | {"attn_layer_indices": [1]}, "keys and values of each token"),
    "granite, hybrid": refused("GraniteMoeHybrid", FEW_HEADS | LOCAL_EXPERTS | MAMBA | {
        "layer_types": ["mamba", "attention"]}, "keys and values of each token"),
    "falcon-h1": refused("FalconH1", FEW_HEADS | MAMBA | {"mamba_d_ssm": 64}, "beside keys and values"),
    "lfm2": refused("Lfm2", FEW_HEADS | {"full_attn_idxs": [1]}, "keys and values of each token"),
}  # fmt: skip


def build(case: Case) -> PreTrainedModel:
    """The model, each of its parameters noise: transformers begins biases with zero, where no fault shows."""
    config = getattr(transformers, f"{case.family}Config")(**case.fields)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()
