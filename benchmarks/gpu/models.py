"""Models with random weights, made on the device.

Their weights are drawn so wide that texts differ from row to row: with transformers' own, all logits lie close
together, and whatever is computed wrong leads to the same tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.gpu.shapes import Shape

# Of what comes out, in relation to what goes in. Scores of attention are to differ too, or each token sees the mean of
# all; logits are to lie as far apart as those of trained models.
GAINS = {"q_proj": 2.0, "k_proj": 2.0, "lm_head": 2.0}


def random_model(
    shape: Shape, device: torch.device, dtype: torch.dtype, context: int, seed: int = 7
) -> PreTrainedModel:
    """A Llama of this shape that ends no text by itself."""
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, head_dim=shape.head_size,
        vocab_size=shape.vocabulary, max_position_embeddings=context, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    model = model.to_empty(device=device)
    _draw(model, torch.Generator(device).manual_seed(seed))
    # What is computed and not stored was empty too.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    return model.eval()


@torch.no_grad()
def _draw(model: Any, generator: torch.Generator) -> None:
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.fill_(1.0)
        elif "embed" in name:
            weight.normal_(generator=generator)
        else:
            gain = GAINS.get(name.split(".")[-2], 1.0)
            weight.normal_(0.0, gain * weight.shape[1] ** -0.5, generator=generator)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte; ids beyond them have no text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: id for id, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def saved_model(shape: Shape, device: torch.device, dtype: torch.dtype, context: int, folder: Path) -> Path:
    """The folder of a random model, as a worker loads it."""
    random_model(shape, device, dtype, context).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
