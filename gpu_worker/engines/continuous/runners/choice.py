"""Which runner computes a model: the fastest of those that give what `model.generate` gives."""

from __future__ import annotations

import logging
from collections.abc import Callable

from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kernels.library import Kernels, fits_attention
from gpu_worker.engines.continuous.kvcache.memory import KvMemory
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.checks import Checks
from gpu_worker.engines.continuous.runners.layer_shapes import first_line, refusal
from gpu_worker.engines.continuous.runners.load_check import checked_slots
from gpu_worker.engines.continuous.runners.model_runner import ModelRunner
from gpu_worker.engines.continuous.runners.packed_model import is_known
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner
from promptq.contract.errors import EngineError

log = logging.getLogger(__name__)


def choose_runner(
    model: PreTrainedModel, memory: KvMemory, checks: Checks, *, packed: bool = True, kernels: Kernels | None = None
) -> Runner:
    """The fastest runner that computes the model in company as `generate` does alone.

    Args:
        packed: whether PackedRunner may be chosen.

    Raises:
        EngineError: none does; says in one line what differs.
    """
    makers: list[Callable[[], Runner]] = [lambda: ModelRunner(model, memory.as_slots())]
    if packed and is_known(model) and all(shape.window is None for shape in memory.shapes):
        is_faster = kernels is not None and fits_attention(memory.shapes[0].key[1])
        makers.insert(0, lambda: PackedRunner(model, memory.by_start(is_faster=is_faster), kernels))
    for make in makers:
        runner, reason = _checked(make, checks)
        if runner:
            return runner
        # Its numbers need not be finite, and the next runner's rows would read them.
        if cache := memory.taken:
            for slot in checked_slots(cache):
                cache.clear(slot, cache.columns)
        if make is not makers[-1]:
            log.warning("%s runs through transformers' own code, which is slower: %s", type(model).__name__, reason)
    raise EngineError(refusal(model, reason))


def _checked(make: Callable[[], Runner], checks: Checks) -> tuple[Runner | None, str]:
    """The runner, or why it is none."""
    try:
        runner = make()
        found = checks.difference(runner)
    except Exception as error:
        return None, first_line(error)
    return (None, found) if found else (runner, "")
