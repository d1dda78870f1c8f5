"""From the settings to an engine for their model: loaded, its memory taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.base import Engine
from gpu_worker.engines.continuous.encoder import creation as embeddings
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.kernels.library import Kernels, load_kernels
from gpu_worker.engines.continuous.loading.loader import limit_context, load, loaded_fingerprint
from promptq.contract.settings import WorkerSettings
from promptq.runtime.cgroups import processors


def kernels_for(settings: WorkerSettings, model: PreTrainedModel) -> Kernels | None:
    """Our kernels for this model, kept in the data folder; None where they are turned off or of no use."""
    return load_kernels(settings.data_dir / "kernels", model.device, model.dtype) if settings.kernels else None


def create(settings: WorkerSettings, done: Callable[[str], None]) -> Engine:
    """Load the model that the settings name, and take its memory; `done` is told of each."""
    done("torch")  # imported with this module
    # torch knows what it is bound to, and of no quota: threads beyond it only stop one another.
    torch.set_num_threads(settings.worker_threads or min(torch.get_num_threads(), processors()))
    recipe = embeddings.recipe_of(settings)
    return embeddings.create(settings, recipe, done) if recipe else _create(settings, done)


def _create(settings: WorkerSettings, done: Callable[[str], None]) -> ContinuousEngine:
    model, tokenizer = load(settings)
    done("model")
    engine = ContinuousEngine(
        model,
        tokenizer,
        slots=0 if settings.slots == "auto" else settings.slots,
        context=limit_context(model, settings.context_length),
        prefill_tokens=settings.prefill_tokens,
        graphs=None if settings.cuda_graphs else False,
        drafts=settings.drafts,
        prefixes=settings.prefixes,
        name=settings.model_name,
        fingerprint=loaded_fingerprint(settings),
        kernels=kernels_for(settings, model),
        checks_folder=settings.data_dir / "checks",
    )
    done("memory")
    return engine
