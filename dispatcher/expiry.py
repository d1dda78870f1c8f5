"""The duty of files whose time is over."""

from __future__ import annotations

import logging
import time

from promptq.contract.files import path_of
from promptq.contract.metrics import DispatcherMetrics
from promptq.queue.files import FileRecords
from promptq.runtime import failpoints
from promptq.storage.storage import Storage

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0


class ExpiryDuty:
    """Deletes files at their end. Several dispatchers may do it together: what is deleted is gone for all."""

    name = "expiry"
    is_busy = False

    def __init__(self, files: FileRecords, storage: Storage, metrics: DispatcherMetrics) -> None:
        self._files = files
        self._storage = storage
        self._metrics = metrics
        self._looks_at = 0.0

    def run(self) -> None:
        """Delete some.

        Raises:
            RedisUnavailable, StorageUnavailable: the next round goes on.
        """
        if (now := time.monotonic()) < self._looks_at:
            return
        self._looks_at = now + LOOK_SECONDS
        for record in self._files.expired():
            # The record last: who is killed between the two deletes once more.
            if not record.in_use:
                self._storage.delete(path_of(record.id))
                failpoints.hit("dispatcher.file_deleted")
                self._files.drop(record)
                self._metrics.files_expired.inc()

    def close(self) -> None:
        """Nothing is under way."""
