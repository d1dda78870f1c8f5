"""Which kernels a model gets on a CPU: ours, for one kind of processor or another, or torch's. Measured, and kept."""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gpu_worker.engines.continuous import kept_results
from gpu_worker.engines.continuous.kernels.build import version
from gpu_worker.engines.continuous.kernels.fastest import TORCH, Choice, Round, fastest
from gpu_worker.engines.continuous.kernels.library import Kernels, load_all, usable_targets
from gpu_worker.engines.continuous.runners.linear import Linear, linear
from gpu_worker.engines.continuous.runners.packed_model import is_known
from promptq.contract.errors import EngineError

log = logging.getLogger(__name__)

# Few rows, many, and a prompt.
ROWS = (4, 24, 96)
# More than caches hold, so that memory is waited for as in a step.
SAMPLE_WEIGHTS = 12 * 2**20
# Threads wait for one another in each, which takes long beside a process that wants the same cores.
MOST_PRODUCTS = 24
MOST_SECONDS = 0.7
ENOUGH_ROUNDS = 4
# Of the processor, in /proc/cpuinfo: x86's name, or ARM's numbers.
_CPUINFO = ("model name", "CPU implementer", "CPU part", "CPU variant")

Shape = tuple[int, int]
Make = Callable[[Tensor], Linear]


def choose_kernels(model: PreTrainedModel, folder: Path) -> Kernels | None:
    """What is fastest on the shapes of the model's products; None: torch's operators.

    Args:
        folder: where kernels are compiled into, and the choice is kept.
    """
    usable = usable_targets(model.device, model.dtype)
    if not usable or not is_known(model):
        return None
    shapes = _shapes(model)
    path = folder / f"choice-{_key(usable, shapes)}.json"
    kept = kept_results.read(path)
    if kept and kept.get("name") in (*usable, TORCH):
        log.info("kernels: %s, as measured before: %s", kept["name"], kept.get("reason"))
        return next(iter(load_all(folder, [name for name in usable if name == kept["name"]])), None)
    loaded = {kernels.target: kernels for kernels in load_all(folder, usable)}
    return loaded.get(_measured(loaded, shapes, path).name) if loaded else None


def forced_kernels(model: PreTrainedModel, folder: Path, target: str) -> Kernels | None:
    """Those for this target; None for a model on another device, or in another number format than float32.

    Raises:
        EngineError: this processor has not what they are compiled for, or they cannot be compiled.
    """
    usable = usable_targets(model.device, model.dtype)
    if model.device.type != "cpu" or model.dtype is not torch.float32:
        return None
    if target not in usable:
        raise EngineError(f"PROMPTQ_KERNELS={target}: this processor runs {' and '.join(usable) or 'none of them'}")
    loaded = load_all(folder, [target])
    if not loaded:
        raise EngineError(f"PROMPTQ_KERNELS={target}: they cannot be compiled; the log says why")
    return loaded[0]


def _measured(loaded: Mapping[str, Kernels], shapes: Sequence[Shape], path: Path) -> Choice:
    started = time.perf_counter()
    makers: dict[str, Make] = {name: partial(linear, kernels=own) for name, own in loaded.items()}
    choice = measure({**makers, TORCH: linear}, shapes)
    log.info("kernels: %s, measured in %.1f s: %s", choice.name, time.perf_counter() - started, choice.reason)
    if choice.is_sure:
        kept_results.write(path, {"name": choice.name, "reason": choice.reason}, "the choice of kernels")
    return choice


@torch.inference_mode()
def measure(makers: Mapping[str, Make], shapes: Sequence[Shape], most_seconds: float = MOST_SECONDS) -> Choice:
    """Time products of these shapes, the candidates in turns, until it is sure which is the fastest.

    Args:
        makers: of each candidate, what makes a product of a weight.
        shapes: [out, in].
        most_seconds: after which no further round begins. One alone, as on a busy machine, makes no sure choice.
    """
    stop = time.perf_counter() + most_seconds
    weights = [torch.ones(shape) for shape in _sample(shapes)]
    candidates = {name: [make(weight) for weight in weights] for name, make in makers.items()}
    inputs = {size: torch.ones(max(ROWS), size) for _, size in shapes}
    rounds: list[Round] = []
    while not rounds or time.perf_counter() < stop:
        rounds.append(
            {name: [_seconds(each, weights, inputs, rows) for rows in ROWS] for name, each in candidates.items()}
        )
        if len(rounds) >= ENOUGH_ROUNDS and fastest(rounds).is_sure:
            break
    return fastest(rounds)


def _seconds(products: Sequence[Linear], weights: Sequence[Tensor], inputs: Mapping[int, Tensor], rows: int) -> float:
    started = time.perf_counter()
    for product, weight in zip(products, weights, strict=True):
        product(inputs[weight.shape[1]][:rows])
    return time.perf_counter() - started


def _shapes(model: PreTrainedModel) -> list[Shape]:
    """Of one layer's products; the others' are the same."""
    modules = model.model.layers[0].modules()
    return [(module.out_features, module.in_features) for module in modules if isinstance(module, nn.Linear)]


def _sample(shapes: Sequence[Shape]) -> list[Shape]:
    """The same shapes, as often as SAMPLE_WEIGHTS allow, or with fewer outputs where they don't allow all."""
    total = sum(outputs * size for outputs, size in shapes)
    if total <= SAMPLE_WEIGHTS:
        return list(shapes) * max(1, min(SAMPLE_WEIGHTS // total, MOST_PRODUCTS // len(shapes)))
    return [(max(1, outputs * SAMPLE_WEIGHTS // total), size) for outputs, size in shapes]


def _key(usable: Sequence[str], shapes: Sequence[Shape]) -> str:
    """Of everything that the choice depends on, a hash."""
    parts = (*_processor(), *map(version, usable), torch.__version__, torch.get_num_threads(), *shapes)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _processor() -> Iterator[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    yield platform.processor()
    yield from sorted({line for line in lines if line.startswith(_CPUINFO)})
