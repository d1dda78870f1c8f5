"""vLLM's LLMEngine, its core in this process: what whoever generates and whoever embeds does with it alike."""

from __future__ import annotations

from typing import Any

from promptq.contract.errors import EngineBroken


def step(core: Any) -> list[Any]:
    """One step of vLLM's; returns its outputs.

    Raises:
        EngineBroken: it failed: of which row it was, or whether of any, vLLM does not say.
    """
    try:
        return list(core.step())
    except Exception as error:
        raise EngineBroken(f"vLLM failed in a step: {type(error).__name__}: {error}".splitlines()[0]) from error


def close(core: Any) -> None:
    """End what would outlive this process. The memory goes with it: to collect it takes longer than a drain may."""
    if core.vllm_config.parallel_config.world_size > 1:
        core.engine_core.shutdown()
