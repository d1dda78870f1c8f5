"""`python -m tests.poison_worker`: an echo worker that a prompt beginning with "poison" kills."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from gpu_worker.__main__ import serve
from gpu_worker.engines.base import Row, StepResult
from gpu_worker.engines.echo import AUTO_SLOTS, EchoEngine
from promptq.contract.settings import WorkerSettings
from promptq.runtime.lifecycle import Stop


class PoisonableEngine(EchoEngine):
    """Dies as an engine does whose kernel crashes: at once, with every row it has."""

    doomed = False

    def add(self, rows: Sequence[Row]) -> None:
        super().add(rows)
        self.doomed = self.doomed or any((row.request.prompt or "").startswith("poison") for row in rows)

    def step(self, now: float) -> StepResult:
        if self.doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(now)


if __name__ == "__main__":
    settings = WorkerSettings.load()
    serve(settings, PoisonableEngine(AUTO_SLOTS, settings.echo_tokens_per_second), Stop().install())
    sys.exit(0)
