"""Which runner computes a model: the fastest of those that give what `model.generate` gives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedModel

from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.kvcache.slots import SlotCache
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.checks import Checks
from gpu_worker.engines.continuous.runners.graph.runner import GraphRunner
from gpu_worker.engines.continuous.runners.graph.suitability import facts_of, why_not_anywhere, why_not_on_cuda
from gpu_worker.engines.continuous.runners.layer_shapes import first_line, refusal
from gpu_worker.engines.continuous.runners.load_check import checked_slots
from gpu_worker.engines.continuous.runners.model_runner import ModelRunner
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner
from promptq.contract.errors import EngineError

log = logging.getLogger(__name__)


def choose_runner(
    model: PreTrainedModel,
    cache: SlotCache,
    checks: Checks,
    *,
    packed: bool = True,
    kernels: Kernels | None = None,
    graphs: bool | None = None,
) -> Runner:
    """The fastest runner that computes the model in company as `generate` does alone.

    Args:
        packed: whether a runner of our own may be chosen, or transformers' code alone.
        graphs: whether GraphRunner may be; None: where its attention and CUDA graphs serve; True: on a CPU too, where
            it is slow.

    Raises:
        EngineError: none does; says in one line what differs.
    """
    ways = _own_ways(model, cache, kernels, graphs) if packed else []
    ways.append(_Way("through transformers' own code", lambda: ModelRunner(model, cache)))
    for way, slower in zip(ways, [*ways[1:], None], strict=True):
        runner, reason = _checked(way.make, checks)
        if runner:
            return runner
        # Its numbers need not be finite, and the next runner's rows would read them.
        for slot in checked_slots(cache):
            cache.clear(slot)
        if slower:
            log.warning("%s runs %s, which is slower: %s", type(model).__name__, slower.name, reason)
    raise EngineError(refusal(model, reason))


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to compute a model, and what a log says of it."""

    name: str
    make: Callable[[], Runner]


def _own_ways(model: PreTrainedModel, cache: SlotCache, kernels: Kernels | None, graphs: bool | None) -> list[_Way]:
    """Those that know the model's layers, the fastest first."""
    facts = facts_of(model, cache)
    if why_not_anywhere(facts):
        return []
    ways = [_Way("without CUDA graphs", lambda: PackedRunner(model, cache, kernels))]
    reason = why_not_on_cuda(facts)
    if graphs or (graphs is None and not reason):
        ways.insert(0, _Way("with CUDA graphs", lambda: GraphRunner(model, cache)))
    elif facts.device == "cuda":
        log.info("%s runs without CUDA graphs: %s", type(model).__name__, reason or "they are turned off")
    return ways


def _checked(make: Callable[[], Runner], checks: Checks) -> tuple[Runner | None, str]:
    """The runner, or why it is none."""
    try:
        runner = make()
        found = checks.difference(runner)
    except Exception as error:
        return None, first_line(error)
    return (None, found) if found else (runner, "")
