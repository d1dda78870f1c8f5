"""A worker's engine in a process of its own, without a queue: made from settings, as a worker makes it.

`python -m benchmarks.gpu.worker '{"model": …}'` says in a line of JSON how its start went, waits for a line on its
input, generates, says how that went, and waits for the next one, to its input's end.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psutil

from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings

PROMPT_TOKENS, NEW_TOKENS = 64, 16


def main() -> None:
    """One JSON line for the start, and one for each line of input, which is the number of rows to run."""
    parts = _Parts()
    settings = WorkerSettings(_env_file=None, **json.loads(sys.argv[1]))
    parts.done("settings")
    try:
        from gpu_worker.engines.registry import create_engine

        engine: Any = create_engine(settings, parts.done)
    except EngineError as error:
        _say({"refused": error.message} | parts.facts)
        return
    _say({"slots": engine.info.slots, "details": engine.info.details} | parts.facts)
    for line in sys.stdin:
        _say(_generated(engine, int(line)))
    engine.close()


class _Parts:
    """What the start is made of, in seconds each."""

    def __init__(self) -> None:
        self._began = self._last = psutil.Process().create_time()
        self._seconds: dict[str, float] = {}
        self.done("python")

    def done(self, part: str) -> None:
        """This part ends now."""
        now = time.time()
        self._seconds[part] = now - self._last
        self._last = now

    @property
    def facts(self) -> dict[str, Any]:
        """All parts, and their sum."""
        return {"parts": self._seconds, "seconds": self._last - self._began}


def _generated(engine: Any, count: int) -> dict[str, Any]:
    from benchmarks.gpu.engine_runs import drive, row

    rows = [row(str(i), [1 + (i + j) % 200 for j in range(PROMPT_TOKENS)], NEW_TOKENS) for i in range(count)]
    run = drive(engine, rows)
    return {"rows": count, "seconds": run.seconds, "tokens": run.count, "errors": run.errors}


def _say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact, default=str), flush=True)


if __name__ == "__main__":
    main()
