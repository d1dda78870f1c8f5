"""Takes back what dead workers held, as often as there is more of it."""

from __future__ import annotations

import logging

from promptq.queue.store import REAP_AT_MOST, JobStore, Reaped

log = logging.getLogger(__name__)

PASSES_AT_MOST = 100


class Reaper:
    """Reaps once a round. `at` is in steady seconds.

    While Redis is away nobody can renew, so an outage longer than a lease would cost every running job an attempt.
    After one, and on a server that has only just started, live workers first get one lease in which to renew.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._answers_since: float | None = None
        self._was_away = False

    def note_outage(self) -> None:
        """Redis did not answer in this round."""
        self._answers_since = None
        self._was_away = True

    def reap(self, at: float) -> Reaped:
        """Expire and trim; and take leases back, unless it is too early to tell the dead from the cut off."""
        if self._answers_since is None:
            self._answers_since = at - (0.0 if self._was_away else self._store.uptime_seconds())
        early = at - self._answers_since < self._store.settings.lease_seconds
        return reap(self._store, spare_leases=early)

    def take_back(self, worker: str) -> Reaped:
        """What a worker held whose process has ended: it cannot renew, so nothing is waited for."""
        done = self._store.take_back(worker)
        if _jobs(done):
            log.info("Took back what %s held: %s", worker, done)
        return done


def reap(store: JobStore, *, spare_leases: bool = False) -> Reaped:
    """Reap until a pass finds less than a full batch. Tells the sum of what was done."""
    total = Reaped(0, 0, 0, 0)
    for _ in range(PASSES_AT_MOST):
        done = store.reap(spare_leases=spare_leases)
        total = _sum(total, done)
        if _jobs(done) < REAP_AT_MOST:
            break
    if _jobs(total):
        log.info("Reaped: %s", total)
    return total


def _jobs(reaped: Reaped) -> int:
    return reaped.requeued + reaped.worker_lost + reaped.cancelled + reaped.expired


def _sum(a: Reaped, b: Reaped) -> Reaped:
    return Reaped(
        a.requeued + b.requeued, a.worker_lost + b.worker_lost, a.cancelled + b.cancelled, a.expired + b.expired
    )
