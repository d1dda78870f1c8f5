"""The lines of one batch whose jobs wait or run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dispatcher.batches.lines import Line
from promptq.contract.job import Job


class InFlight:
    """Knows by its id which line a job is of."""

    def __init__(self) -> None:
        self._line_of: dict[str, Line] = {}

    def __len__(self) -> int:
        return len(self._line_of)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._line_of

    @property
    def ids(self) -> list[str]:
        """Of all jobs that have not been seen to end."""
        return [job_id for job_id, line in self._line_of.items() if job_id in line.live]

    def add(self, line: Line) -> None:
        """The jobs of a line have been submitted."""
        line.live = set(line.ids)
        self._line_of.update(dict.fromkeys(line.ids, line))

    def note_ended(self, ids: Iterable[str]) -> list[Line]:
        """Jobs have ended, or are there no more; gives the lines of which none is live now."""
        whole = []
        for job_id in ids:
            line = self._line_of.get(job_id)
            if line and job_id in line.live:
                line.live.discard(job_id)
                if not line.live:
                    whole.append(line)
        return whole

    def remove(self, line: Line) -> None:
        """The line is done with, or is to be submitted again."""
        for job_id in line.ids:
            self._line_of.pop(job_id, None)

    def clear(self) -> None:
        """All is done with."""
        self._line_of.clear()


def all_ended(jobs: Sequence[Job | None]) -> list[Job] | None:
    """The jobs of a line; None where one is there no more, or has not ended."""
    found = [job for job in jobs if job and job.status.is_terminal]
    return found if len(found) == len(jobs) else None
