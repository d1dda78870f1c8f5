"""The end of a batch: what has not ended is written as that, and the parts become one file each."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from dispatcher.batches.context import Context, Stopping
from dispatcher.batches.in_flight import all_ended
from dispatcher.batches.lines import MESSAGES, Entry, Line, ended, prepare, unfinished
from dispatcher.batches.writer import Writer
from promptq.contract.batch_lines import numbered
from promptq.contract.batches import KINDS, BatchRecord, BatchStatus, Kind, is_done
from promptq.contract.chunks import chunks
from promptq.contract.errors import JobAlreadyTerminal, JobNotFound
from promptq.contract.files import part_path, path_of
from promptq.contract.job import Job, Status
from promptq.queue.batches import LEASE, LeaseLost
from promptq.queue.endings import ended as ended_ids
from promptq.queue.leases import holds
from promptq.queue.scripts import JOBS_PER_SCRIPT
from promptq.runtime import failpoints
from promptq.storage.storage import ObjectMissing

log = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
"""How long what runs may still run when a batch is cancelled, or its window ends."""
LOOK_SECONDS = 0.2
LINES_AT_ONCE = 100


def end(context: Context, batch: BatchRecord, token: str) -> None:
    """Bring a batch that is cancelling or finalizing to its end. To be called again where it raises.

    Raises:
        LeaseLost: another dispatcher holds the batch.
        Stopping: the process is about to stop.
        RedisUnavailable, StorageUnavailable: something does not answer.
    """
    if batch.closing in MESSAGES and batch.total:
        try:
            _write_the_rest(context, batch, token)
        except ObjectMissing:
            log.error("The input of batch %s is gone, and what its other lines were nobody knows.", batch.id)
    for kind in KINDS:
        _assemble(context, batch, token, kind)
    failpoints.hit("dispatcher.assembled")
    ends: dict[str, BatchStatus] = {"expired": "expired", "cancelled": "cancelled", "failed": "failed"}
    keep = batch.keep_seconds or context.settings.batch_ttl_seconds
    before: list[BatchStatus] = ["cancelling", "finalizing"]
    if context.batches.move(batch.id, token, before, ends.get(batch.closing, "completed"), keep_seconds=keep):
        failpoints.hit("dispatcher.batch_ended")
        context.storage.delete(part_path(batch.id, ""))


def _assemble(context: Context, batch: BatchRecord, token: str, kind: Kind) -> None:
    """One file of the parts that were committed: whoever does it, and however often, it is the same."""
    parts = [part for part in context.batches.parts(batch.id) if part.kind == kind]

    def pieces() -> Iterator[bytes]:
        for part in parts:
            yield from context.storage.read(part_path(batch.id, part.name))
        # The file is put into its place next. Who was stopped for long must not put it over that of a later round.
        if not holds(context.store, LEASE + batch.id, token):
            raise LeaseLost(batch.id)

    # Without parts there may be a file all the same. Of this round: it was put together before, and is whole. Of the
    # round before: its lines have another end now, and its record is of an empty file.
    known = None if parts else context.files.get(batch.file_id(kind))
    if parts or (known and not known.size):
        context.storage.write(path_of(batch.file_id(kind)), pieces())


def _write_the_rest(context: Context, batch: BatchRecord, token: str) -> None:
    """What has a text by now is written with it, whoever submitted it; the rest as expired or cancelled."""
    _stop_jobs(context, batch)
    writer = Writer(batch, token, context.batches, context.storage, context.metrics)
    for entry in _rest(context, batch):
        writer.add(entry)
        if writer.is_due:
            writer.flush()
    while len(writer):
        writer.flush()


def _stop_jobs(context: Context, batch: BatchRecord) -> None:
    """What waits is cancelled; what runs may end, for a while."""
    running = []
    for lines in _undone(context, batch):
        for job in _jobs(context, lines):
            if job and job.status is Status.QUEUED:
                _cancel(context, job.id)
            elif job and job.status is Status.RUNNING:
                running.append(job.id)
    deadline = time.monotonic() + GRACE_SECONDS
    while running and time.monotonic() < deadline:
        if context.stopping.wait(LOOK_SECONDS):
            raise Stopping
        running = list(set(running).difference(ended_ids(context.store, running)))
    for job_id in running:
        _cancel(context, job_id)


def _cancel(context: Context, job_id: str) -> None:
    try:
        context.store.cancel(job_id)
    except (JobAlreadyTerminal, JobNotFound):
        return


def _rest(context: Context, batch: BatchRecord) -> Iterator[Entry]:
    for lines in _undone(context, batch):
        found = {job.id: job for job in _jobs(context, lines) if job}
        for line in lines:
            if isinstance(line, Entry):
                yield line
                continue
            jobs = all_ended([found.get(job_id) for job_id in line.ids])
            if jobs and all(job.status is Status.SUCCEEDED or job.status is Status.FAILED for job in jobs):
                yield ended(batch, line, jobs)
            else:
                yield unfinished(batch, line.number, line.custom_id, line.ids)


def _undone(context: Context, batch: BatchRecord) -> Iterator[list[Line | Entry]]:
    done = context.batches.done(batch.id)
    numbers = numbered(context.storage.lines(path_of(batch.input_file_id)))
    lines = (
        prepare(batch, number, raw, context.settings, context.models)
        for number, raw in numbers
        if not is_done(done, number)
    )
    return chunks(lines, LINES_AT_ONCE)


def _jobs(context: Context, lines: Iterable[Line | Entry]) -> Iterator[Job | None]:
    ids = [job_id for line in lines if isinstance(line, Line) for job_id in line.ids]
    for some in chunks(ids, JOBS_PER_SCRIPT):
        yield from context.store.get_many(some)
