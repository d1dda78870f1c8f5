"""Gives the batches' next lines to the queues: as many as there is room for, in a fair order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher.batches.context import Context
from dispatcher.batches.fairness import FairOrder, Occupancy
from dispatcher.batches.lines import Line
from dispatcher.batches.pace import room
from dispatcher.batches.run import BatchRun
from promptq.contract.chunks import chunks
from promptq.contract.errors import IdempotencyConflict
from promptq.queue.records import Admission, NewJob, Submitted
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.runtime import failpoints
from promptq.runtime.traces import Attributes

MOST_LINES = 500
"""In one round: others have to be collected and written meanwhile."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A line that is submitted now."""

    run: BatchRun
    line: Line
    news: Sequence[NewJob]


class Submitter:
    """Submits for all batches of a dispatcher."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def submit(self, runs: Sequence[BatchRun]) -> None:
        """Submit what there is room for.

        Raises:
            RedisUnavailable: what was submitted is found again by its ids; no line is lost.
        """
        turns: list[_Turn] = []
        try:
            for turn in self._turns({run.record.id: run for run in runs}):
                turns.append(turn)  # what was taken is put back if the next one cannot be looked at
            while turns:
                self._send(turns)
        finally:
            for turn in reversed(turns):
                turn.run.put_back(turn.line)

    def _turns(self, runs: dict[str, BatchRun]) -> Iterator[_Turn]:
        rooms: dict[str, int] = {}
        order = FairOrder(Occupancy(run.record.id, run.record.owner, len(run.in_flight)) for run in runs.values())
        count = 0
        for batch_id in order:
            run = runs[batch_id]
            line = run.peek() if count < MOST_LINES else None
            if line is None or not self._fits(line, rooms):
                order.drop()
                continue
            count += 1
            order.served(len(line.jobs))
            yield self._turn(run)

    def _fits(self, line: Line, rooms: dict[str, int]) -> bool:
        """Take room for a line. One that is larger than all room there ever is needs some only."""
        settings = self._context.settings
        if line.model not in rooms:
            found = self._context.models.queue(line.model)
            rooms[line.model] = room(found, settings.max_queue_jobs, settings.batch_queue_share)
        if rooms[line.model] <= 0:
            return False
        rooms[line.model] -= len(line.jobs)
        return True

    def _turn(self, run: BatchRun) -> _Turn:
        line = run.take()
        priority, reason = run.priority()
        self._context.metrics.submitted.labels(priority, reason).inc(len(line.jobs))
        return _Turn(run, line, line.to_submit(priority, self._traceparent(run, line)))

    def _traceparent(self, run: BatchRun, line: Line) -> str:
        """Each line has a trace of its own, with a link to the request that made the batch: one trace for all of them
        would be too large to be looked at."""
        about: Attributes = {"promptq.batch.id": run.record.id, "promptq.batch.line": line.number}
        with self._context.traces.submit("", about, link=run.record.traceparent) as span:
            return span.traceparent

    def _send(self, turns: list[_Turn]) -> None:
        """The first lines, as many as fit into a script; those that got all of their jobs leave the list."""
        sent: list[_Turn] = []
        news: list[NewJob] = []
        while turns and (not news or len(news) + len(turns[0].news) <= JOBS_PER_SCRIPT):
            sent.append(turns[0])
            news += turns[0].news
            turns.pop(0)
        turns[:0] = sent
        admitted: list[Admission] = []
        failpoints.hit("dispatcher.submitting")
        for some in chunks(news, JOBS_PER_SCRIPT):
            admitted += self._context.store.submit_many(some)
        failpoints.hit("dispatcher.submitted")
        del turns[: len(sent)]
        results = iter(admitted)
        over: list[tuple[BatchRun, str]] = []
        for turn in sent:
            over += _taken_in(turn, [next(results) for _ in turn.news])
        for run in {id(run): run for run, _ in over}.values():
            run.note_ended([job_id for one, job_id in over if one is run])


def _taken_in(turn: _Turn, admissions: Sequence[Admission]) -> Iterator[tuple[BatchRun, str]]:
    """A line's jobs are under way, or it is next again; gives those that have ended already."""
    if not all(map(_is_there, admissions)):
        turn.run.put_back(turn.line)
        return
    turn.run.in_flight.add(turn.line)
    for one in admissions:
        if isinstance(one, Submitted) and one.job.status.is_terminal:
            yield turn.run, one.job.id


def _is_there(admission: Admission) -> bool:
    """Whether the job is there. One of the same id that differs is ours too: it was queued with another priority."""
    return isinstance(admission, Submitted | IdempotencyConflict)
