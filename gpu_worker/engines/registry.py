"""Engines by name. Each is imported when it is asked for: the echo engine comes up without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from gpu_worker.engines.base import Engine
from promptq.contract.settings import WorkerSettings

Note = Callable[[str], None]
"""Told when a part of a start has ended."""


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """How an engine is made.

    Attributes:
        factory: "module:function"; the function takes the settings and a Note, and returns an Engine.
        preloaded: modules that it will need; they may be imported before anyone knows for which GPU.
    """

    factory: str
    preloaded: tuple[str, ...] = field(default=())

    def load(self) -> Callable[[WorkerSettings, Note], Engine]:
        """Import the factory."""
        module, _, name = self.factory.partition(":")
        function: Any = getattr(import_module(module), name)
        return function  # type: ignore[no-any-return]


ENGINES: Final[Mapping[str, EngineEntry]] = {
    "continuous": EngineEntry(
        "gpu_worker.engines.continuous.creation:create",
        ("gpu_worker.engines.continuous.creation", "transformers.models.llama.modeling_llama"),
    ),
    "vllm": EngineEntry("gpu_worker.engines.vllm.creation:create", ("gpu_worker.engines.vllm.creation",)),
    "echo": EngineEntry("gpu_worker.engines.echo:create"),
    "upstream": EngineEntry("gpu_worker.engines.upstream.creation:create"),
}
"""A new engine is a line here, a name in the setting, and a module; see tests/contract/test_engines.py for its laws."""


def create_engine(settings: WorkerSettings, done: Note = lambda _: None) -> Engine:
    """Build the engine that the settings name, its model loaded and its memory taken.

    Args:
        done: told of the parts of the start: torch, model, memory.

    Raises:
        EngineError: the model, the device or the memory is not there; one line says which.
    """
    return ENGINES[settings.engine].load()(settings, done)


def preload(settings: WorkerSettings) -> None:
    """Import what `create_engine` will need, and nothing more: no model, no memory, no look at a GPU.

    Which GPUs there are may be decided later, and CUDA reads that once, when it is first asked.
    """
    for module in ENGINES[settings.engine].preloaded:
        import_module(module)
