"""Starts `benchmarks.gpu.worker`, and speaks with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from promptq.contract.settings import WorkerSettings

ROOT = Path(__file__).parents[2]

MEMORY_SHARE = "gpu_memory_share"
"""The setting that lets several workers share a GPU, where the engine has it."""


def has_memory_share() -> bool:
    """Whether this engine knows it."""
    return MEMORY_SHARE in WorkerSettings.model_fields


class WorkerProcess:
    """One worker.

    Args:
        settings: of `WorkerSettings`, by name.
        log: what it prints beside its answers.
    """

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(settings, default=str)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        self._log = log

    def answer(self) -> dict[str, Any]:
        """Its next line; or its exit code, and what it printed last."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        return {"error": f"ended with {self._process.wait()}", "log": self._log.read_text(errors="replace")[-1500:]}

    def run(self, rows: int) -> None:
        """Let it generate; `answer` says how that went. One that has ended answers that."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{rows}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def worker_settings(folder: Path, device: str, data: Path, **more: Any) -> dict[str, Any]:
    """For the model in this folder."""
    return {"model": str(folder), "device": device, "data_dir": str(data)} | more
