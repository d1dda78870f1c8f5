"""`python -m benchmarks.stream_worker`: an echo worker whose words are the moments at which it said them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, SupportsIndex

from gpu_worker.__main__ import serve
from gpu_worker.engines.base import Row
from gpu_worker.engines.echo import EchoEngine
from promptq.contract.settings import WorkerSettings
from promptq.runtime.lifecycle import Stop


class _Moments(list[str]):
    """As many words as the prompt had; each is read when it is said."""

    def __getitem__(self, places: SupportsIndex | slice) -> Any:
        words = super().__getitem__(places)
        return [f"{time.time():.6f}"] * len(words)


class ClockEngine(EchoEngine):
    """Everything but the words is the echo engine's."""

    def add(self, rows: Sequence[Row]) -> None:
        super().add(rows)
        for row in rows:
            self._live[row.id].words = _Moments(self._live[row.id].words)


if __name__ == "__main__":
    settings = WorkerSettings.load()
    assert isinstance(settings.slots, int)
    serve(settings, ClockEngine(settings.slots, settings.echo_tokens_per_second), Stop().install())
    sys.exit(0)
