"""`python -m tests.breaking_worker`: an echo worker that breaks when it has a prompt that begins with "break".

As a CUDA context does: from then on every step fails, whatever it is given. With a prompt that begins with "crash" it
fails in a way that nobody has thought of.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpu_worker import __main__ as program
from gpu_worker.engines.base import Row, StepResult
from gpu_worker.engines.echo import AUTO_SLOTS, EchoEngine
from promptq.contract.errors import EngineBroken
from promptq.contract.settings import WorkerSettings


class BreakableEngine(EchoEngine):
    """What the worker sees of an engine whose device is lost."""

    is_broken = False

    def add(self, rows: Sequence[Row]) -> None:
        super().add(rows)
        if any((row.request.prompt or "").startswith("crash") for row in rows):
            raise KeyError("a fault of ours")
        self.is_broken = self.is_broken or any((row.request.prompt or "").startswith("break") for row in rows)

    def step(self, now: float) -> StepResult:
        if self.is_broken:
            raise EngineBroken("the device fails: CUDA error: device-side assert triggered")
        return super().step(now)


def create(settings: WorkerSettings, *_: object) -> BreakableEngine:
    return BreakableEngine(AUTO_SLOTS, settings.echo_tokens_per_second)


if __name__ == "__main__":
    vars(program)["create_engine"] = create
    sys.exit(program.main([]))
