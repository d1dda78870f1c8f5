"""The witness: an echo engine that writes down, outside of the queue, what it was asked to generate.

A queue that loses or repeats work would lose or repeat its own record of it. The witness writes each token to a file of
its worker's before anybody hears of it, in one call of the system that survives a SIGKILL.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_worker.engines.base import Row, StepResult
from gpu_worker.engines.echo import AUTO_SLOTS, EchoEngine
from promptq.contract.settings import WorkerSettings

FOLDER = "WITNESS_FOLDER"


class WitnessEngine(EchoEngine):
    """What the worker sees of an echo engine, in every respect."""

    def __init__(self, path: Path, slots: int, tokens_per_second: float, name: str) -> None:
        super().__init__(slots, tokens_per_second, name=name)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, rows: Sequence[Row]) -> None:
        super().add(rows)
        self._write(f"begin {row.id} {len(row.progress)}" for row in rows)

    def step(self, now: float) -> StepResult:
        result = super().step(now)
        self._write(f"tokens {event.id} {event.token_ids[0]} {event.tokens}" for event in result.events if event.tokens)
        return result

    def _write(self, lines: Iterable[str]) -> None:
        if text := "".join(line + "\n" for line in lines):
            os.write(self._file, text.encode())


def create(settings: WorkerSettings, _done: Callable[[str], None]) -> WitnessEngine:
    """The registry's factory."""
    slots = AUTO_SLOTS if settings.slots == "auto" else settings.slots
    path = Path(os.environ[FOLDER]) / f"{settings.worker_name or os.getpid()}.witness"
    return WitnessEngine(path, slots, settings.echo_tokens_per_second, settings.model_name)


@dataclass(frozen=True)
class Witnessed:
    """What all workers of a run generated.

    Attributes:
        times: by job, by place of the token, how often it was generated.
        begun: by job, how many tokens there were whenever a worker began with it.
    """

    times: dict[str, Counter[int]]
    begun: dict[str, list[int]]

    def doubled(self, job_id: str) -> int:
        """Tokens of a job that were generated once more than needed; one that was so twice counts twice."""
        return sum(count - 1 for count in self.times.get(job_id, Counter()).values())

    @property
    def doubled_by_job(self) -> dict[str, int]:
        """Of the jobs of which some were."""
        return {job_id: count for job_id in self.times if (count := self.doubled(job_id))}

    @property
    def generated(self) -> int:
        """All tokens, each time."""
        return sum(sum(times.values()) for times in self.times.values())

    def gaps(self, job_id: str) -> list[int]:
        """Places that no worker generated, before the last one that some did."""
        times = self.times.get(job_id, Counter())
        return [place for place in range(max(times, default=-1)) if place not in times]


def read(folder: Path) -> Witnessed:
    """All files of a folder; a last line that a crash has cut is left out."""
    times: dict[str, Counter[int]] = defaultdict(Counter)
    begun: dict[str, list[int]] = defaultdict(list)
    for path in sorted(folder.glob("*.witness")):
        *lines, _cut = path.read_text().split("\n")
        for line in lines:
            kind, job_id, first, *count = line.split(" ")
            if kind == "begin":
                begun[job_id].append(int(first))
            else:
                times[job_id].update(range(int(first), int(first) + int(count[0])))
    return Witnessed(dict(times), dict(begun))
