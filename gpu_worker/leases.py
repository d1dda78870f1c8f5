"""Keeps leases and the worker's registration alive, on a thread that a long decode step cannot starve."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gpu_worker.claim_io import ClaimIO
from promptq.contract.errors import RedisUnavailable
from promptq.queue.store import Claim, JobStore

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
RETRY_SECONDS = 0.5
NUDGE_SECONDS = 0.25
"""Between two beats: a worker may be idle and busy by turns a thousand times a second."""


class LeaseKeeper(threading.Thread):
    """Renews every held claim and beats the worker's heart, three times a lease.

    Args:
        beat: writes the worker's state; called on each round and when `nudge` asks for one.
        on_verdict: called with (claim, "lost" | "cancel") for each claim that should not go on.
    """

    def __init__(
        self, store: JobStore, claim_io: ClaimIO, beat: Callable[[], None], on_verdict: Callable[[Claim, str], None]
    ) -> None:
        super().__init__(name="leases", daemon=True)
        self._store = store
        self._claim_io = claim_io
        self._beat = beat
        self._on_verdict = on_verdict
        self._nudged = threading.Event()
        self._closed = threading.Event()

    def nudge(self) -> None:
        """Write the worker's state soon: it changed."""
        self._nudged.set()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._closed.set()
        self._nudged.set()
        self.join()

    def run(self) -> None:
        """Renew and beat until closed; after a failure try again soon."""
        interval = self._store.settings.lease_seconds / BEATS_PER_LEASE
        due = time.monotonic()
        while not self._closed.is_set():
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + interval
                    self._renew()
                self._beat()
            except RedisUnavailable as error:
                log.warning("Leases were not renewed: %s", error)
                due = time.monotonic() + RETRY_SECONDS
            except Exception:
                log.exception("A round of renewals failed; the next one goes on.")
            self._closed.wait(min(NUDGE_SECONDS, interval))
            self._nudged.wait(max(0.0, due - time.monotonic()))
            self._nudged.clear()

    def _renew(self) -> None:
        claims = self._claim_io.held()
        for claim, verdict in zip(claims, self._store.renew(claims), strict=True):
            if verdict != "ok":
                self._on_verdict(claim, verdict)
        self._claim_io.wake()
