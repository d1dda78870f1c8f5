"""What engines can do that choose tokens, and make texts of them, by this engine's code."""

from __future__ import annotations

from gpu_worker.engines.base import Capabilities
from gpu_worker.engines.continuous.vocabulary import IS_AVAILABLE


def capabilities(*, tools: bool, adapters: bool = False) -> Capabilities:
    """Of such an engine.

    Args:
        tools: whether the model's chat template knows them.
        adapters: whether it has any by name.
    """
    return Capabilities(
        resume=True,
        preempt=True,
        logprobs=True,
        json_schema=IS_AVAILABLE,
        penalties=True,
        logit_bias=True,
        token_prompts=True,
        tools=tools and IS_AVAILABLE,
        adapters=adapters,
        streaming=True,
    )
