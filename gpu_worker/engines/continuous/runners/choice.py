"""Which runner computes a model: the fastest of those that give what `model.generate` gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.kvcache.memory import KvMemory
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.checks import Checks
from gpu_worker.engines.continuous.runners.layer_shapes import first_line, refusal
from gpu_worker.engines.continuous.runners.load_check import checked_slots
from gpu_worker.engines.continuous.runners.model_runner import ModelRunner
from gpu_worker.engines.continuous.runners.packed_model import PackedModel, is_known
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner, usable
from promptq.contract.errors import EngineError

log = logging.getLogger(__name__)


def lay_out(
    model: PreTrainedModel, shapes: Sequence[LayerShape], *, packed: bool = True, kernels: Kernels | None = None
) -> PackedModel | None:
    """The weights as PackedRunner reads them, made before the slots' memory is measured: they take memory of their own.

    None where transformers' own code is to run the model, or where they cannot be laid out, for which choose_runner
    has the reason.

    Raises:
        EngineError: the memory is too short.
    """
    if not (packed and is_known(model) and all(shape.window is None for shape in shapes)):
        return None
    try:
        return PackedModel(model, usable(kernels, shapes[0]))
    except Exception as error:
        if is_memory_error(error):
            raise EngineError(f"the weights do not fit into {model.device}'s memory: {first_line(error)}") from None
        return None


def choose_runner(
    model: PreTrainedModel, memory: KvMemory, checks: Checks, *, weights: PackedModel | None = None,
    packed: bool = True, kernels: Kernels | None = None,
) -> Runner:  # fmt: skip
    """The fastest runner that computes the model in company as `generate` does alone.

    Args:
        weights: as `lay_out` gives them.
        packed: whether PackedRunner may be chosen.

    Raises:
        EngineError: none does, or the memory is too short for a step; says in one line what differs.
    """
    makers: list[Callable[[], Runner]] = [lambda: ModelRunner(model, memory.as_slots())]
    if packed and is_known(model) and all(shape.window is None for shape in memory.shapes):
        is_faster = usable(kernels, memory.shapes[0]) is not None
        makers.insert(0, lambda: PackedRunner(model, memory.by_start(is_faster=is_faster), kernels, weights))
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
    except EngineError:
        raise
    except Exception as error:
        if is_memory_error(error):
            raise EngineError(f"no memory is left for a step: {first_line(error)}; lower PROMPTQ_SLOTS") from None
        return None, first_line(error)
    return (None, found) if found else (runner, "")
