"""From the settings to an engine of embeddings, where their model makes some."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tokenizers import normalizers
from torch import nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from gpu_worker.engines.base import EngineInfo
from gpu_worker.engines.continuous.encoder.encoder import Encoder
from gpu_worker.engines.continuous.encoder.engine import ABLE, STEP_TOKENS, EmbeddingEngine
from gpu_worker.engines.continuous.encoder.recipe import Recipe, find_recipe
from gpu_worker.engines.continuous.encoder.sizes import Sizes
from gpu_worker.engines.continuous.loading.fingerprint import model_fingerprint, model_identity
from gpu_worker.engines.continuous.loading.loader import limit_context, load, load_config, model_folder, read_json
from gpu_worker.engines.continuous.text.prompts import tokenizer_json
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings

log = logging.getLogger(__name__)

AUTO_SLOTS = {"cpu": 64, "cuda": 256}
UNUSED = ("pooler.", "encoder.pooler.")
"""Weights that no embedding is made with: checkpoints of models that fill masks have none."""


def recipe_of(settings: WorkerSettings) -> Recipe | None:
    """How the model of the settings makes embeddings, or None for one that generates text.

    Raises:
        EngineError: the model cannot be read, or asks for what is not supported.
    """
    return recipe_for(settings, load_config(settings))


def recipe_for(settings: WorkerSettings, config: Any) -> Recipe | None:
    """Likewise, of a model whose configuration is read."""
    return find_recipe(config, MODEL_FOR_MASKED_LM_MAPPING_NAMES, partial(read_json, settings))


def create(settings: WorkerSettings, recipe: Recipe, done: Callable[[str], None]) -> EmbeddingEngine:
    """Load the model that the settings name, and try it; `done` is told of each.

    Raises:
        EngineError: it is not there or not whole, or cannot be batched.
    """
    log.info("the model embeds: %s", recipe)
    model, tokenizer = load(settings, _Whole)
    if recipe.lower_case:
        lower_case(tokenizer)
    done("model")
    context = longest_prompt(model, tokenizer, recipe, settings.context_length)
    encoder = Encoder(model, recipe, context)
    engine = EmbeddingEngine(
        encoder,
        tokenizer,
        _describe(settings, encoder, tokenizer, context),
        step_tokens=settings.prefill_tokens or STEP_TOKENS[model.device.type],
        prefix=recipe.prefix,
        sizes=Sizes.of(model.config, encoder.size, recipe.normalize),
    )
    done("memory")
    return engine


def _describe(
    settings: WorkerSettings, encoder: Encoder, tokenizer: PreTrainedTokenizerBase, context: int
) -> EngineInfo:
    device, dtype = encoder.model.device, str(encoder.model.dtype).removeprefix("torch.")
    return EngineInfo(
        settings.model_name,
        str(device),
        dtype,
        AUTO_SLOTS[device.type] if settings.slots == "auto" else settings.slots,
        context,
        {"embedding": str(encoder.size), "torch": torch.__version__},
        tokenizer_json(tokenizer),
        ABLE,
        model_identity(model_fingerprint(model_folder(settings)), context, dtype),
    )


def longest_prompt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, asked: int) -> int:
    """Tokens of a prompt: the least of what is asked for, what the model was made for, and what it has places for.

    Args:
        asked: 0: nothing.
    """
    tables = [
        part for name, part in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding)
    ]  # fmt: skip
    # Where the padding has a place of its own, as in RoBERTa, the first token has the one behind it.
    places = [table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1) for table in tables]
    given = [limit for limit in (asked, recipe.max_tokens, *places, tokenizer.model_max_length) if limit]
    return limit_context(model, min(given))


class _Whole:
    """Makes the bare model, and only of a checkpoint that has all of it: what is missing would be made up."""

    @staticmethod
    def from_pretrained(source: Any, **options: Any) -> PreTrainedModel:
        model, loaded = AutoModel.from_pretrained(source, output_loading_info=True, **options)
        if missing := sorted(name for name in loaded["missing_keys"] if not name.startswith(UNUSED)):
            raise EngineError(f"its checkpoint has no {missing[0]}, and {len(missing) - 1} more weights are missing")
        return model  # type: ignore[no-any-return]


def lower_case(tokenizer: Any) -> None:
    """Have the tokenizer see small letters, before whatever else it does to a text."""
    backend = tokenizer.backend_tokenizer
    rest = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
