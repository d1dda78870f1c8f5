"""Keeps leases and the worker's registration alive, on a thread that a long decode step cannot starve."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from gpu_worker.claim_io import ClaimIO
from promptq.contract.errors import RedisUnavailable
from promptq.queue.store import Claim, JobStore
from promptq.runtime import failpoints

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
LOOK_SECONDS = 5.0
"""However long a lease is, so often is looked for work and for cancels of which no message came."""
RETRY_SECONDS = 0.5
BEAT_SECONDS = 0.25
"""The least time between two beats: a worker may be idle and busy by turns a thousand times a second."""


class LeaseKeeper(threading.Thread):
    """Renews every held claim and beats the worker's heart, three times a lease or more often.

    Args:
        beat: writes the worker's state; called after each renewal, and soon after `nudge`.
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
        self._interval = min(LOOK_SECONDS, store.settings.lease_seconds / BEATS_PER_LEASE)
        self._renew_at = self._beat_from = time.monotonic()
        self._state_changed = False
        self._woken = threading.Event()
        self._closed = False

    def nudge(self) -> None:
        """Write the worker's state soon: it changed."""
        self._state_changed = True
        self._woken.set()

    def renew_now(self) -> None:
        """Ask Redis at once how the held claims stand."""
        self._renew_at = time.monotonic()
        self._woken.set()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._closed = True
        self._woken.set()
        self.join()

    def run(self) -> None:
        """Renew and beat until closed; after a failure try again soon."""
        while not self._closed:
            self._woken.clear()
            try:
                self._round(time.monotonic())
            except RedisUnavailable as error:
                log.warning("Leases were not renewed: %s", error)
                self._renew_at = time.monotonic() + RETRY_SECONDS
            except Exception:
                log.exception("A round of renewals failed; the next one goes on.")
            if not self._closed:
                self._woken.wait(max(0.0, self._next_round() - time.monotonic()))

    def _round(self, now: float) -> None:
        if now >= self._renew_at:
            self._renew_at = now + self._interval
            self._renew()
            self._state_changed = True
        if self._state_changed and now >= self._beat_from:
            self._beat_from = now + min(BEAT_SECONDS, self._interval)
            self._state_changed = False
            self._beat()

    def _next_round(self) -> float:
        return min(self._renew_at, self._beat_from) if self._state_changed else self._renew_at

    def _renew(self) -> None:
        claims = self._claim_io.held()
        if claims:
            failpoints.hit("worker.renewing")
        for claim, verdict in zip(claims, self._store.renew(claims), strict=True):
            if verdict != "ok":
                self._on_verdict(claim, verdict)
        self._claim_io.wake()
