"""One batch that this dispatcher holds: from its validation to its end."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future

from dispatcher.batches.context import Context
from dispatcher.batches.ending import end
from dispatcher.batches.forgetting import forget
from dispatcher.batches.in_flight import InFlight, all_ended
from dispatcher.batches.lines import Entry, Line, ended, prepare
from dispatcher.batches.pace import priority
from dispatcher.batches.redrive import reopen
from dispatcher.batches.writer import Writer
from promptq.contract.batch_lines import LineError, errors_for, numbered
from promptq.contract.batches import BatchRecord, is_done
from promptq.contract.chunks import chunks
from promptq.contract.errors import RedisUnavailable
from promptq.contract.files import path_of
from promptq.contract.job import Job
from promptq.contract.queues import Priority
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.storage.storage import ObjectMissing

log = logging.getLogger(__name__)

RATE_SECONDS = 30.0
_INPUT_MISSING = LineError("input_file_missing", "The input file is gone.").as_dict()


class BeginAnew(Exception):
    """What is in memory of a batch is no use any more. Nothing is lost: its jobs are found again by their ids."""


class BatchRun:
    """Holds a batch's lease, its place in the input, its jobs under way, and what is to be written.

    Args:
        token: of the lease.
        executor: runs what takes long: the end of a batch, and its reopening.
    """

    def __init__(self, context: Context, record: BatchRecord, token: str, executor: Executor) -> None:
        self.record = record
        self.token = token
        self.in_flight = InFlight()
        self._context = context
        self._executor = executor
        self._task: Future[None] | None = None
        self._trouble: Exception | None = None
        self._begin()

    def _begin(self) -> None:
        """At the first line that is not done, as after a crash."""
        context = self._context
        self._writer = Writer(self.record, self.token, context.batches, context.storage, context.metrics)
        self._input: Iterator[tuple[int, bytes]] | None = None
        self._next: deque[Line] = deque()
        self._is_read = False
        self._rate_from = (time.monotonic(), self.record.completed + self.record.failed)
        self._rate = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether something that takes long goes on; raises what it raised once it has ended."""
        if self._task is None:
            return False
        if not self._task.done():
            return True
        task, self._task = self._task, None
        task.result()
        return False

    @property
    def submits(self) -> bool:
        """Whether it may have lines to submit."""
        return self.record.status == "in_progress" and not self.record.redrive and self._task is None

    def advance(self) -> None:
        """What is to be done in this round, but for submitting.

        Raises:
            LeaseLost: another dispatcher holds the batch.
            BeginAnew: the place in the input is lost.
            ObjectMissing: the input is.
            RedisUnavailable, StorageUnavailable: to be called again.
        """
        if self.is_busy:
            return
        if self._trouble:
            raise self._trouble if isinstance(self._trouble, ObjectMissing) else BeginAnew from self._trouble
        if self.record.redrive:
            self._reopen()
        elif self.record.status == "validating":
            self._validate()
        elif self.record.status == "in_progress":
            self._progress()
        elif self.record.status in ("cancelling", "finalizing"):
            self._end()

    def peek(self) -> Line | None:
        """The next line to submit; what is written about lines that cannot be run goes to the writer.

        Where the input cannot be read there is none, and `advance` raises why.
        """
        try:
            return self._peek()
        except Exception as error:
            self._trouble = error
            return None

    def _peek(self) -> Line | None:
        while not self._next and not self._is_read:
            for number, raw in self._lines():
                entry = prepare(self.record, number, raw, self._context.settings, self._context.models)
                if isinstance(entry, Line):
                    self._next.append(entry)
                    break
                self._writer.add(entry)
                if self._writer.is_due:
                    return None
            else:
                self._is_read = True
        return self._next[0] if self._next else None

    def take(self) -> Line:
        """The line that `peek` gave."""
        return self._next.popleft()

    def put_back(self, line: Line) -> None:
        """A line was not admitted, or Redis has forgotten a job of it: it is next again."""
        self.in_flight.remove(line)
        self._next.appendleft(line)

    def priority(self) -> tuple[Priority, str]:
        """How urgent its jobs are now, and why."""
        record = self.record
        left = record.total - record.completed - record.failed
        begins = record.times.get("in_progress_at", record.created_at)
        return priority(self._context.now, begins, record.expires_at, left, self._rate)

    def note_ended(self, ids: Iterable[str]) -> None:
        """Jobs have ended, or are there no more: their texts go to the writer, or their lines are next again."""
        whole = self.in_flight.note_ended(ids)
        try:
            for some in chunks(whole, JOBS_PER_SCRIPT):
                self._collect(some)
        except Exception:
            for line in whole:  # to be seen to end again
                if line.ids[0] in self.in_flight:
                    line.live = set(line.ids)
            raise

    def _collect(self, lines: Iterable[Line]) -> None:
        ids = [job_id for line in lines for job_id in line.ids]
        found: dict[str, Job | None] = {}
        for some in chunks(ids, JOBS_PER_SCRIPT):
            found.update(zip(some, self._context.store.get_many(some), strict=True))
        for line in lines:
            jobs = all_ended([found[job_id] for job_id in line.ids])
            if jobs is None:
                self.put_back(line)
                continue
            self._writer.add(ended(self.record, line, jobs))
            self.in_flight.remove(line)

    def _validate(self) -> None:
        """Against what was found when the input was uploaded."""
        context, record = self._context, self.record
        file = context.files.get(record.input_file_id)
        if file is None:
            errors = [_INPUT_MISSING]
        else:
            errors = errors_for(record.endpoint, dict(file.first_lines), list(file.errors))
        if errors or file is None:
            keep = record.keep_seconds or context.settings.batch_ttl_seconds
            context.batches.move(
                record.id, self.token, ["validating"], "failed", {"errors": json.dumps(errors)}, keep_seconds=keep
            )
        else:
            context.batches.move(record.id, self.token, ["validating"], "in_progress", {"total": file.lines})

    def _progress(self) -> None:
        if self._context.now >= self.record.expires_at:
            self._move_on(closing="expired")
            return
        self._note_rate()
        is_over = self._is_read and not self._next and not self.in_flight
        if self._writer.is_due or (is_over and len(self._writer)):
            self._forget(self._writer.flush())
        elif is_over:
            self._move_on()

    def _move_on(self, **fields: str | int) -> None:
        self._context.batches.move(self.record.id, self.token, ["in_progress"], "finalizing", fields)

    def flush(self) -> None:
        """Write what has ended now: the process is about to stop.

        Raises:
            LeaseLost, RedisUnavailable, StorageUnavailable: it was not written, and is read again by others.
        """
        if not self.is_busy:
            self._forget(self._writer.flush())

    def fail(self) -> None:
        """The input is there no more: what has ended is kept, and what the rest was nobody knows.

        Raises:
            LeaseLost: another dispatcher holds the batch.
        """
        self._trouble = None
        self._move_on(closing="failed", errors=json.dumps([_INPUT_MISSING]))

    def _end(self) -> None:
        """What has ended is kept; the rest is looked for by its ids, so it does not matter who submitted it."""
        self._forget(self._writer.flush())
        self.in_flight.clear()
        self._next.clear()
        self._task = self._executor.submit(end, self._context, self.record, self.token)

    def _reopen(self) -> None:
        self._task = self._executor.submit(reopen, self._context, self.record, self.token)
        self.in_flight.clear()

    def refresh(self, record: BatchRecord) -> None:
        """Take in the record as it is now."""
        before, self.record = self.record, record
        if record.round != before.round:
            self._begin()

    def _note_rate(self) -> None:
        now, done = time.monotonic(), self.record.completed + self.record.failed
        since, before = self._rate_from
        if now - since >= RATE_SECONDS:
            self._rate, self._rate_from = (done - before) / (now - since), (now, done)

    def _forget(self, entries: list[Entry]) -> None:
        try:
            forget(self._context.store, entries)
        except RedisUnavailable:
            log.info("Some jobs of %s are left to their lifetimes.", self.record.id)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        if self._input is None:
            done = self._context.batches.done(self.record.id)
            lines = numbered(self._context.storage.lines(path_of(self.record.input_file_id)))
            self._input = ((number, raw) for number, raw in lines if not is_done(done, number))
        return self._input
