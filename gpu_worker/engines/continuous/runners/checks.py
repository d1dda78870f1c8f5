"""Keeps what came out when a runner was compared with `model.generate`, so that each start after the first saves it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from gpu_worker.engines.continuous import kept_results
from gpu_worker.engines.continuous.runners.base import Runner
from gpu_worker.engines.continuous.runners.load_check import difference
from gpu_worker.engines.continuous.runners.short_copy import difference_in_float32

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]


class Checks:
    """The comparisons of one model.

    Args:
        context: the most tokens of a row.
        fingerprint: of the model's files.
        folder: where results are kept; nowhere if None, or without a fingerprint.
    """

    def __init__(self, model: PreTrainedModel, context: int, fingerprint: str = "", folder: Path | None = None) -> None:
        self._model, self._context = model, context
        self._fingerprint, self._folder = fingerprint, folder if fingerprint else None

    def difference(self, runner: Runner) -> str | None:
        """What the runner computes otherwise than `generate`; None: nothing. See `load_check.difference`."""
        path = self._folder and self._folder / f"{self._name(runner)}.json"
        kept = (path and kept_results.read(path)) or {}
        result: str | int | None = kept.get("difference", 0)
        if not isinstance(result, int):
            return result
        started = time.perf_counter()
        found = self._compare(runner)
        log.info("compared %s with generate in %.2f s", type(runner).__name__, time.perf_counter() - started)
        if path:
            kept_results.write(path, {"difference": found}, "the comparison with generate")
        return found

    def _compare(self, runner: Runner) -> str | None:
        model, context = self._model, self._context
        strictly = None if model.dtype is torch.float32 else difference_in_float32(model, type(runner), context)
        return strictly or difference(model, runner, context)

    def _name(self, runner: Runner) -> str:
        """Of everything that the result depends on, a hash."""
        model = self._model
        parts = [
            self._fingerprint, _version(), torch.__version__, transformers.__version__, type(runner).__name__,
            runner.linear_kind, model.dtype, model.config._attn_implementation, _device(model.device), self._context,
            runner.cache.layout, runner.cache.slots, runner.cache.tokens,
        ]  # fmt: skip
        return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()


@cache
def _version() -> str:
    """Of this engine's source, its kernels included."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for suffix in ("py", "c", "h"):
        yield from PACKAGE.rglob(f"*.{suffix}")
