"""Runs one stage as a process of its own, with a time limit, and says how it ended."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report, broken_parts, one_line, read

# What every stage needs, imported once for all of them. None of it asks CUDA anything, which a copy of the process
# could not use afterwards.
PRELOADED = ["transformers.models.llama.modeling_llama", "benchmarks.gpu.engine_runs", "benchmarks.gpu.profiles"]
LOG_CHARACTERS = 3000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage ended.

    Attributes:
        status: ok, skipped, failed, timed out or not begun.
        error: in one line, or why it was skipped; empty: there is none.
        log: the end of what it printed, where it failed.
        found: its results, or as many as it had.
    """

    status: str
    seconds: float = 0.0
    error: str = ""
    log: str = ""
    found: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For the file of results; what is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}


def starter(method: str) -> BaseContext:
    """What makes processes: `forkserver`, out of one that has imported torch already, or `spawn`, each from nothing."""
    context: BaseContext = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    return context


def run_stage(context: BaseContext, task: Task, seconds: float) -> Outcome:
    """Run the stage to its end, or end it after so many seconds, and whatever it has started with it."""
    found, log = task.folder / "found.json", task.folder / "log.txt"
    process: BaseProcess = context.Process(target=_stage, args=(task, found, log))  # type: ignore[attr-defined]
    started = time.monotonic()
    process.start()
    process.join(seconds)
    is_late = process.is_alive()
    _end(process)
    return outcome(process.exitcode, time.monotonic() - started, seconds if is_late else None, read(found), _tail(log))


def outcome(code: int | None, took: float, limit: float | None, found: dict[str, Any], log: str) -> Outcome:
    """How a stage ended, by its exit code; `limit` is the one that it has exceeded, if it has."""
    error, has_ended = found.pop("error", ""), found.pop("ended", False)
    if limit is not None and not has_ended:
        return Outcome("timed out", took, f"it was ended after {limit:.0f} s", log, found)
    # Once it has ended its exit code says nothing: a device that is broken may fail what a process does on its way out.
    if error or not has_ended:
        return Outcome("failed", took, error or f"the process ended with {_code(code)}", log, found)
    if parts := broken_parts(found):
        return Outcome("failed", took, f"of it failed: {', '.join(parts)}", log, found)
    return Outcome("skipped" if "skipped" in found else "ok", took, found.get("skipped", ""), found=found)


def _code(code: int | None) -> str:
    return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"


def _stage(task: Task, found: Path, log: Path) -> None:
    """In the new process."""
    os.setsid()  # whatever it starts is ended with it
    target = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(target, 1)
    os.dup2(target, 2)
    # A copy of a process may have others in their place.
    sys.stdout = sys.stderr = open(target, "w", buffering=1, closefd=False)  # noqa: SIM115
    report = Report(found)
    try:
        importlib.import_module(f"benchmarks.gpu.stages.{task.stage.module}").run(task, report)
    except BaseException as error:
        report.note(error=one_line(error))
        traceback.print_exc()
    report.note(ended=True)


def _end(process: BaseProcess) -> None:
    assert process.pid is not None
    # Ended or not: a process that it has started may still run.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
    except OSError:
        return ""
