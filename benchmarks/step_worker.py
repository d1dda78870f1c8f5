"""`STEPS_FILE=… python -m benchmarks.step_worker`: a worker that writes down its engine's steps.

A line of JSON a step: when it began and ended (monotonic seconds, the same for all processes of a host), prompt tokens
that it computed, and the tokens of each row; and a line for each row when the engine got it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_worker.__main__ import serve
from gpu_worker.engines.base import Engine, Row, StepResult
from gpu_worker.engines.registry import create_engine
from promptq.contract.settings import WorkerSettings
from promptq.runtime.lifecycle import Stop


def written_down(engine: Engine, path: Path) -> Engine:
    """The same engine, which writes."""
    add, step, file = engine.add, engine.step, path.open("w", buffering=1)

    def adding(rows: Sequence[Row]) -> None:
        add(rows)
        for row in rows:
            file.write(json.dumps({"row": row.id, "at": time.monotonic()}) + "\n")

    def stepping(now: float) -> StepResult:
        began = time.monotonic()
        result = step(now)
        line: dict[str, Any] = {"began": began, "ended": time.monotonic(), "prefill": result.stats.prefill_tokens}
        file.write(json.dumps(line | {"tokens": {event.id: event.tokens for event in result.events}}) + "\n")
        return result

    vars(engine).update(add=adding, step=stepping)
    return engine


if __name__ == "__main__":
    settings = WorkerSettings.load()
    serve(settings, written_down(create_engine(settings), Path(os.environ["STEPS_FILE"])), Stop().install())
    sys.exit(0)
