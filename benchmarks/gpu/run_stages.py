"""Goes through the stages, one after the other, and keeps what each has found at once."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Stage, Task, limit_seconds
from benchmarks.gpu.processes import Outcome, run_stage, starter
from benchmarks.gpu.report import write

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        seconds: for all stages together.
        out: the folder of the file of results.
    """

    device: str
    short: bool
    vllm: str
    seconds: float
    out: Path


def run_stages(stages: Sequence[Stage], options: Options, tell: Callable[[str], None]) -> tuple[Path, Results]:
    """Run them; returns the file of results, and what is in it by stage."""
    results: Results = {}
    ends_at = time.monotonic() + options.seconds
    context = starter("forkserver")
    path = options.out / file_name("", options)
    for index, stage in enumerate(stages):
        limit = limit_seconds(stage, ends_at - time.monotonic(), options.short)
        outcome = _outcome(context, stage, options, results, limit)
        if index == 0 and outcome.status == "failed":
            # CUDA may have been asked something while all was imported: each stage imports by itself then.
            context = starter("spawn")
            outcome = _outcome(context, stage, options, results, limit)
        results[stage.name] = outcome.as_json()
        path = _keep(path, options, results)
        tell(f"{stage.name}: {outcome.status} in {outcome.seconds:.1f} s {outcome.error}".rstrip())
    return path, results


def _outcome(context: BaseContext, stage: Stage, options: Options, results: Results, limit: float | None) -> Outcome:
    if limit is None:
        return Outcome("not begun", error="no time is left for it")
    earlier = {name: result.get("found", {}) for name, result in results.items()}
    folder = Path(tempfile.mkdtemp(prefix="bench-gpu-"))
    try:
        return run_stage(context, Task(stage, options.device, options.short, options.vllm, earlier, folder), limit)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, options: Options, results: Results) -> Path:
    """Write all that is there. The file has the card's name as soon as that is known."""
    card = results.get("versions", {}).get("found", {}).get("card", "")
    named = options.out / file_name(card, options)
    if named != path:
        path.unlink(missing_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write(named, {"card": card, "device": options.device, "short": options.short, "stages": results})
    return named


def file_name(card: str, options: Options) -> str:
    """`gpu-<card>.json`, so that each number lies under the card that gave it."""
    slug = re.sub(r"[^a-z0-9]+", "-", (card or "unknown card").lower()).strip("-")
    return f"gpu-{slug}{'-short' if options.short else ''}.json"
