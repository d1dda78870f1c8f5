"""Engines: what turns prompts into text. `base` has the protocol; torch stays behind `create_engine`."""

from __future__ import annotations

from gpu_worker.engine.base import Engine
from promptq.settings import WorkerSettings


def create_engine(settings: WorkerSettings) -> Engine:
    """Build the engine that the settings name, its model loaded and its memory taken.

    Imports on demand: the echo engine comes up without torch.

    Raises:
        EngineError: the model, the device or the memory is not there; one line says which.
    """
    if settings.engine == "echo":
        from gpu_worker.engine.echo import EchoEngine

        return EchoEngine(settings.slots, settings.echo_tokens_per_second, settings.batching)
    from gpu_worker.engine.transformers_engine import TransformersEngine

    return TransformersEngine.from_settings(settings)
