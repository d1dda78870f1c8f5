"""The duty of parts that are left of batches that have ended: a dispatcher that dies between the two leaves them."""

from __future__ import annotations

import logging
import time
from typing import TypeGuard

from dispatcher.lease_keeper import LeaseKeeper
from promptq.contract.batches import ENDED, BatchRecord
from promptq.contract.chunks import chunks
from promptq.contract.files import part_path
from promptq.queue.batches import LEASE, BatchRecords
from promptq.storage.storage import Storage

log = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
AGAIN_SECONDS = 5.0
AT_ONCE = 100


class SweepDuty:
    """Deletes parts of batches that it knows to have ended, at the start and now and then.

    What has no record is left alone: it may be another deployment's, or Redis the wrong one.
    """

    name = "sweep"
    is_busy = False

    def __init__(self, batches: BatchRecords, storage: Storage, leases: LeaseKeeper) -> None:
        self._batches = batches
        self._storage = storage
        self._leases = leases
        self._sweeps_at = 0.0

    def run(self) -> None:
        """Delete what there is, if it is time.

        Raises:
            RedisUnavailable, StorageUnavailable: a later round goes on.
        """
        if (now := time.monotonic()) < self._sweeps_at:
            return
        self._sweeps_at = now + SWEEP_SECONDS
        for ids in chunks(self._storage.names("batches"), AT_ONCE):
            for record in self._batches.get_many(ids):
                if _has_ended(record) and not self._delete(record.id):
                    self._sweeps_at = now + AGAIN_SECONDS

    def close(self) -> None:
        """Nothing is under way."""

    def _delete(self, batch_id: str) -> bool:
        """Under the batch's lease: nobody runs its failed lines again meanwhile. False: another holds it, or did when
        it died."""
        if not self._leases.take(LEASE + batch_id):
            return False
        try:
            if _has_ended(self._batches.get(batch_id)):
                log.info("Deleted what was left of batch %s.", batch_id)
                self._storage.delete(part_path(batch_id, ""))
        finally:
            self._leases.give_up(LEASE + batch_id)
        return True


def _has_ended(record: BatchRecord | None) -> TypeGuard[BatchRecord]:
    return record is not None and record.status in ENDED
