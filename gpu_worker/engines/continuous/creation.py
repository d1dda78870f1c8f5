"""From the settings to an engine for their model: loaded, its memory taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from gpu_worker.engines.base import Engine
from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.encoder import creation as embeddings
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.loading.loader import (
    first_line,
    limit_context,
    load,
    loaded_fingerprint,
    resolve_device,
)
from gpu_worker.engines.continuous.runners.kernel_choice import choose_kernels, forced_kernels
from gpu_worker.engines.gpu_turns import gpu_turn, plain_name
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings
from promptq.runtime.cgroups import processors


def kernels_for(settings: WorkerSettings, model: PreTrainedModel) -> Kernels | None:
    """Our kernels for this model, kept in the data folder; None where they are turned off or of no use.

    Raises:
        EngineError: the settings name some that cannot run here.
    """
    folder = settings.data_dir / "kernels"
    if settings.kernels == "off":
        return None
    if settings.kernels == "auto":
        return choose_kernels(model, folder)
    return forced_kernels(model, folder, settings.kernels)


def create(settings: WorkerSettings, done: Callable[[str], None]) -> Engine:
    """Load the model that the settings name, and take its memory; `done` is told of each.

    Raises:
        EngineError: the model is not there, cannot be run, or the memory is too short.
    """
    done("torch")  # imported with this module
    # torch knows what it is bound to, and of no quota: threads beyond it only stop one another.
    torch.set_num_threads(settings.worker_threads or min(torch.get_num_threads(), processors()))
    recipe = embeddings.recipe_of(settings)
    with _memory_told(settings), gpu_turn(settings.data_dir / "locks", _gpus(resolve_device(settings.device))):
        return embeddings.create(settings, recipe, done) if recipe else _create(settings, done)


@contextmanager
def _memory_told(settings: WorkerSettings) -> Iterator[None]:
    """Wherever the memory runs out while an engine is made, one line says so."""
    try:
        yield
    except Exception as error:
        if isinstance(error, EngineError) or not is_memory_error(error):
            raise
        message = f"the memory is too short for {settings.model!r} with PROMPTQ_SLOTS={settings.slots}"
        raise EngineError(f"{message}: {first_line(error)}") from error


def _gpus(device: torch.device) -> list[str]:
    """Names of the GPUs that the device is on."""
    return [plain_name(str(torch.cuda.get_device_properties(device).uuid))] if device.type == "cuda" else []


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
        layout=settings.kv_layout,
    )
    done("memory")
    return engine
