"""The duty of batches: takes those that nobody holds, and gives each its share of the queues in every round."""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import get_args

from dispatcher.batches.context import Context, Stopping
from dispatcher.batches.run import BatchRun, BeginAnew
from dispatcher.batches.submitter import Submitter
from dispatcher.lease_keeper import LeaseKeeper
from promptq.contract.batches import ENDED, BatchStatus
from promptq.contract.chunks import chunks
from promptq.contract.errors import RedisUnavailable
from promptq.queue.batches import LEASE, LeaseLost, WrittenTwice
from promptq.queue.endings import ended
from promptq.storage.storage import ObjectMissing, StorageUnavailable

log = logging.getLogger(__name__)

MOST_HELD = 64
LOOK_SECONDS = 0.5
"""Between two looks for batches that nobody holds, and at the records of those that are held."""
REREAD_SECONDS = 5.0
"""Between two looks at all jobs under way: a message about an end may be lost."""
PAUSE_SECONDS = 2.0
"""After a round of a batch that failed."""
ENDED_AT_ONCE = 2000
IDS_AT_ONCE = 500


class BatchesDuty:
    """Runs batches. All in one thread but the ends of batches, which take long.

    Attributes:
        ended_ids: ids of jobs that ended, any jobs, as messages tell them.
    """

    name = "batches"

    def __init__(self, context: Context, leases: LeaseKeeper) -> None:
        self.ended_ids: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._context = context
        self._leases = leases
        self._runs: dict[str, BatchRun] = {}
        self._resumes_at: dict[str, float] = {}
        self._executor = ThreadPoolExecutor(4, thread_name_prefix="batch")
        self._submitter = Submitter(context)
        self._looks_at = self._rereads_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the next round is soon."""
        return bool(self._runs)

    def hear(self, ids: str) -> None:
        """Jobs have ended: their ids with spaces between. From any thread."""
        self.ended_ids.put(ids)

    def run(self) -> None:
        """One round.

        Raises:
            RedisUnavailable: the next round goes on.
        """
        self._context.now = self._context.store.now()
        self._look()
        self._collect()
        self._each(BatchRun.advance)
        self._submit()
        self._context.metrics.held.set(len(self._runs))
        self._context.metrics.in_flight.set(sum(len(run.in_flight) for run in self._runs.values()))

    def close(self) -> None:
        """Write what has ended; the leases are given up by their keeper."""
        self._context.stopping.set()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._each(BatchRun.flush)

    def _look(self) -> None:
        """At the records of all batches that live, and for those that nobody holds."""
        now = time.monotonic()
        if now < self._looks_at:
            return
        self._looks_at = now + LOOK_SECONDS
        ids = self._context.batches.live()
        found = self._context.batches.get_many(ids)
        records = {record.id: record for record in found if record and record.status not in ENDED}
        for batch_id, run in list(self._runs.items()):
            if batch_id not in records or not self._leases.holds(LEASE + batch_id, run.token):
                self._drop(batch_id)
        for batch_id, record in records.items():
            if batch_id in self._runs:
                self._runs[batch_id].refresh(record)
            elif len(self._runs) < MOST_HELD and (token := self._leases.take(LEASE + batch_id)):
                log.info("Batch %s is run here: %s, %d lines done.", batch_id, record.status, record.done)
                self._runs[batch_id] = BatchRun(self._context, record, token, self._executor)
        counts = Counter(record.status for record in records.values())
        for status in set(get_args(BatchStatus)) - ENDED:
            self._context.metrics.batches.labels(status).set(counts[status])

    def _collect(self) -> None:
        """Hand what has ended to the batches."""
        ids = self._heard()
        if (now := time.monotonic()) >= self._rereads_at:
            self._rereads_at = now + REREAD_SECONDS
            ids |= self._reread()
        if ids:
            self._each(lambda run: run.note_ended(job_id for job_id in ids if job_id in run.in_flight))

    def _heard(self) -> set[str]:
        ids: set[str] = set()
        while len(ids) < ENDED_AT_ONCE:
            try:
                ids.update(self.ended_ids.get_nowait().split())
            except queue.Empty:
                break
        return ids

    def _reread(self) -> set[str]:
        live = [job_id for run in self._runs.values() for job_id in run.in_flight.ids]
        return {job_id for some in chunks(live, IDS_AT_ONCE) for job_id in ended(self._context.store, some)}

    def _submit(self) -> None:
        able: list[BatchRun] = []
        self._each(lambda run: able.append(run) if run.submits else None)
        if able:
            self._submitter.submit(able)

    def _each(self, act: Callable[[BatchRun], None]) -> None:
        """Let every batch do something, but those that wait a moment."""
        now = time.monotonic()
        for batch_id, run in list(self._runs.items()):
            if self._resumes_at.get(batch_id, 0.0) <= now:
                self._resumes_at.pop(batch_id, None)
                self._guard(batch_id, run, act)

    def _guard(self, batch_id: str, run: BatchRun, act: Callable[[BatchRun], None]) -> None:
        """One batch's trouble is not the others'."""
        try:
            act(run)
        except (Stopping, CancelledError):
            log.info("Batch %s is another dispatcher's to end.", batch_id)
        except LeaseLost:
            log.warning("Batch %s is another dispatcher's.", batch_id)
            self._drop(batch_id)
        except BeginAnew as error:
            log.warning("Batch %s is begun anew: %s", batch_id, error.__cause__)
            self._drop(batch_id)
        except WrittenTwice:
            log.error("Batch %s was about to be written twice, and is begun anew.", batch_id)
            self._drop(batch_id)
        except (RedisUnavailable, StorageUnavailable) as error:
            self._pause(batch_id, error)
        except ObjectMissing as error:
            self._guard(batch_id, run, BatchRun.fail)
            self._pause(batch_id, error)
        except Exception as error:
            log.exception("Batch %s failed in this round.", batch_id)
            self._pause(batch_id, error)

    def _pause(self, batch_id: str, error: Exception) -> None:
        log.warning("Batch %s waits a moment: %s", batch_id, error)
        self._resumes_at[batch_id] = time.monotonic() + PAUSE_SECONDS

    def _drop(self, batch_id: str) -> None:
        self._runs.pop(batch_id, None)
        self._leases.give_up(LEASE + batch_id)
