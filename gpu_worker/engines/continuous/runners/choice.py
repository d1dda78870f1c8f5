"""Which runner computes a model: the fastest of those that give what `model.generate` gives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.kvcache.base import LayerShape
from gpu_worker.engines.continuous.kvcache.memory import KvMemory
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.checks import Checks
from gpu_worker.engines.continuous.runners.graph.runner import GraphRunner
from gpu_worker.engines.continuous.runners.graph.suitability import facts_of, why_not_anywhere, why_not_on_cuda
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
    model: PreTrainedModel,
    memory: KvMemory,
    checks: Checks,
    *,
    weights: PackedModel | None = None,
    packed: bool = True,
    kernels: Kernels | None = None,
    graphs: bool | None = None,
) -> Runner:
    """The fastest runner that computes the model in company as `generate` does alone.

    Args:
        weights: as `lay_out` gives them.
        packed: whether a runner of our own may be chosen, or transformers' code alone.
        graphs: whether GraphRunner may be; None: where its attention and CUDA graphs serve; True: on a CPU too, where
            it is slow.

    Raises:
        EngineError: none does, or the memory is too short for a step; says in one line what differs.
    """
    ways = _own_ways(model, memory, kernels, weights, graphs) if packed else []
    ways.append(_Way("through transformers' own code", lambda: ModelRunner(model, memory.as_slots())))
    for way, slower in zip(ways, [*ways[1:], None], strict=True):
        runner, reason = _checked(way.make, checks)
        if runner:
            return runner
        # Its numbers need not be finite, and the next runner's rows would read them.
        if cache := memory.taken:
            for slot in checked_slots(cache):
                cache.clear(slot, cache.columns)
        if slower:
            log.warning("%s runs %s, which is slower: %s", type(model).__name__, slower.name, reason)
    raise EngineError(refusal(model, reason))


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to compute a model, and what a log says of it."""

    name: str
    make: Callable[[], Runner]


def _own_ways(
    model: PreTrainedModel,
    memory: KvMemory,
    kernels: Kernels | None,
    weights: PackedModel | None,
    graphs: bool | None,
) -> list[_Way]:
    """Those that know the model's layers, the fastest first."""
    facts = facts_of(model, memory.shapes)
    if why_not_anywhere(facts):
        return []
    is_faster = usable(kernels, memory.shapes[0]) is not None
    ways = [
        _Way(
            "without CUDA graphs", lambda: PackedRunner(model, memory.by_start(is_faster=is_faster), kernels, weights)
        ),
    ]
    reason = why_not_on_cuda(facts)
    if graphs or (graphs is None and not reason):
        ways.insert(0, _Way("with CUDA graphs", lambda: GraphRunner(model, memory.by_start(is_faster=True))))
    elif facts.device == "cuda":
        log.info("%s runs without CUDA graphs: %s", type(model).__name__, reason or "they are turned off")
    return ways


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
