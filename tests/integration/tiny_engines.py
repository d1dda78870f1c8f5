"""Tiny random models of several shapes, the reference they are held against, and what records an engine's tokens."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.kernels.library import load_all, usable_targets
from gpu_worker.engines.continuous.kvcache import memory, slots
from gpu_worker.engines.continuous.kvcache.slots import MEMORY_SHARE
from gpu_worker.engines.continuous.runners.layer_shapes import layer_shapes
from gpu_worker.engines.continuous.scheduler.spans import SPAN_BUCKET
from tests.processes import ROOT

# All that run here, the widest vectors first, and what most tests take; None on a processor that they are not for.
ALL_KERNELS = load_all(ROOT / ".promptq" / "kernels", usable_targets(torch.device("cpu"), torch.float32))
KERNELS = ALL_KERNELS[0] if ALL_KERNELS else None
# The ways through a model, as options of an engine.
WAYS: dict[str, dict[str, Any]] = {
    "kernels": {"kernels": KERNELS},
    "operators": {"kernels": None},
    "transformers": {"packed": False},
}
# And the one for CUDA, which a CPU runs slowly.
ALL_WAYS = WAYS | {"graphs": {"graphs": True}}
NEAR_TIE = 1e-4
CONTEXT = 96
EOS = 256
# Wide initial weights: with the usual ones a random model's logits all lie close together.
SHAPE = {"vocab_size": 257, "eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": EOS, "initializer_range": 0.5}
DEEP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "max_position_embeddings": CONTEXT}


def tiny_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **DEEP, **SHAPE))


def tiny_qwen2() -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(num_attention_heads=4, num_key_value_heads=1, **DEEP, **SHAPE))


def tiny_qwen3() -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(Qwen3Config(num_attention_heads=4, num_key_value_heads=2, head_dim=8, **DEEP, **SHAPE))
    for layer in model.model.layers:
        # As transformers makes them they are ones, and which norm is whose would not show.
        torch.nn.init.normal_(layer.self_attn.q_norm.weight, mean=1.0)
        torch.nn.init.normal_(layer.self_attn.k_norm.weight, mean=1.0)
    return model


def tiny_phi3() -> Phi3ForCausalLM:
    fields = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None}
    return Phi3ForCausalLM(Phi3Config(**fields, **DEEP, **SHAPE))


def tiny_llama3() -> LlamaForCausalLM:
    """A Llama whose rotary frequencies are scaled as Llama 3.1's are: some kept, some divided, some between."""
    scaled = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    fields: dict[str, Any] = DEEP | SHAPE | {"rope_parameters": scaled}
    return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **fields))


def tiny_gemma3() -> Gemma3ForCausalLM:
    """One layer in three attends to everything, the others to a window that most rows outgrow."""
    fields = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 24}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(layer_types=kinds, **fields, **DEEP, **SHAPE))


def tiny_gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, **SHAPE))


TINY = {
    "llama": tiny_llama, "llama3": tiny_llama3, "qwen2": tiny_qwen2, "qwen3": tiny_qwen3, "phi3": tiny_phi3,
    "gemma3": tiny_gemma3, "gpt2": tiny_gpt2,
}  # fmt: skip


def tiny_model(name: str):
    torch.manual_seed(7)
    return TINY[name]().eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: id for id, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def round_model():
    """A Llama that goes round through "abcde", whatever came before."""
    model = tiny_model("llama")
    ids = byte_tokenizer()("abcde")["input_ids"]
    embedded = model.model.embed_tokens.weight.data.clone()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.lm_head.weight.data.mul_(0.01)
    for now, after in zip(ids, ids[1:] + ids[:1], strict=True):
        model.lm_head.weight.data[after] = embedded[now] / 2
    return model


def tiny_engine(model, **options) -> ContinuousEngine:
    options = {"slots": 4, "context": CONTEXT, "prefill_tokens": 24, "kernels": KERNELS} | options
    return ContinuousEngine(model, byte_tokenizer(), **options)


def limit_memory(monkeypatch, model, tokens: int) -> None:
    """Let engines of this model find memory for so many tokens."""
    per_token = sum(shape.token_bytes for shape in layer_shapes(model, CONTEXT))
    free = math.ceil((tokens + SPAN_BUCKET) * per_token / MEMORY_SHARE)
    for module in (memory, slots):
        monkeypatch.setattr(module, "free_bytes", lambda _device: free)


@dataclass
class Reference:
    """What a prompt gives alone: its token ids, and the index of the first near-tie among them."""

    tokens: list[int]
    near_tie: int | None


def reference(model, prompt: list[int], max_tokens: int, eos: list[int]) -> Reference:
    """Greedy tokens of one prompt through `model.generate`, without the end token."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=eos,
        pad_token_id=eos[0],
        return_dict_in_generate=True,
        output_scores=True,
    )
    gaps = [float(best[0] - best[1]) for best in (scores[0].topk(2).values for scores in out.scores)]
    tokens = out.sequences[0, len(prompt) :].tolist()
    if tokens[-1] in eos:
        tokens = tokens[:-1]
    return Reference(tokens, next((index for index, gap in enumerate(gaps) if gap < NEAR_TIE), None))


@dataclass
class Recorder:
    """Records each row's tokens as the engine takes them.

    Attributes:
        reused: prompt tokens that were copied from another slot.
    """

    tokens: dict[str, list[int]] = field(default_factory=dict)
    ends: dict = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    logprobs: dict[str, list[dict]] = field(default_factory=dict)
    reused: int = 0
    right_drafts: int = 0

    def watch(self, engine: ContinuousEngine) -> None:
        append = engine._append

        def recorded(sequence, token, score):
            self.tokens.setdefault(sequence.row.id, []).append(token)
            append(sequence, token, score)

        def stepped(now):
            result = step(now)
            self.reused += result.stats.reused_tokens
            return result

        step, engine.step = engine.step, stepped  # type: ignore[method-assign]
        engine._append = recorded  # type: ignore[method-assign]

    def take(self, result) -> None:
        self.right_drafts += result.stats.right_drafts
        for event in result.events:
            self.logprobs.setdefault(event.id, []).extend(event.logprobs)
        for event in result.events:
            self.text[event.id] = self.text.get(event.id, "") + event.text
            if event.end:
                assert event.id not in self.ends, "a row ends once"
                self.ends[event.id] = event.end


def same(got: list[int], wanted: Reference) -> bool:
    """Whether the tokens are the reference's; False at a near-tie, an assertion otherwise."""
    if got == wanted.tokens:
        return True
    differs = next(i for i in range(len(got) + 1) if got[i : i + 1] != wanted.tokens[i : i + 1])
    assert wanted.near_tie is not None, (differs, got, wanted)
    assert wanted.near_tie <= differs, (differs, got, wanted)
    return False


def drive(engine, recorder: Recorder, waiting: list[Row], cancelled: list[str], rng: random.Random) -> None:
    """Add rows a few at a time between steps, cancel some in flight, until all have ended."""
    while waiting or engine.live_rows():
        free = min(engine.free_slots(), len(waiting), rng.randint(0, 3))
        engine.add(waiting[:free])
        del waiting[:free]
        recorder.take(engine.step(0.0))
        if cancelled and rng.random() < 0.1:
            engine.cancel([cancelled.pop()])
