"""Engines: what turns prompts into text. `base` has the protocol; torch stays behind `create_engine`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from gpu_worker.engines.base import Engine
from promptq.contract.settings import WorkerSettings

ECHO_SLOTS = 16
PRELOADED = ("gpu_worker.engines.continuous.engine", "transformers.models.llama.modeling_llama")
"""What `create_engine` imports, and what loading the default model then does."""


def create_engine(settings: WorkerSettings, done: Callable[[str], None] = lambda _: None) -> Engine:
    """Build the engine that the settings name, its model loaded and its memory taken.

    Imports on demand: the echo engine comes up without torch.

    Args:
        done: told when a part of the start has ended: torch, model, memory.

    Raises:
        EngineError: the model, the device or the memory is not there; one line says which.
    """
    if settings.engine == "echo":
        from gpu_worker.engines.echo import EchoEngine

        slots = ECHO_SLOTS if settings.slots == "auto" else settings.slots
        return EchoEngine(slots, settings.echo_tokens_per_second, settings.batching)
    from gpu_worker.engines.continuous.engine import ContinuousEngine

    done("torch")
    return ContinuousEngine.from_settings(settings, done)


def preload(settings: WorkerSettings) -> None:
    """Import what `create_engine` will need, and nothing more: no model, no memory, no look at a GPU.

    Which GPUs there are may be decided later, and CUDA reads that once, when it is first asked.
    """
    if settings.engine != "echo":
        for module in PRELOADED:
            import_module(module)
