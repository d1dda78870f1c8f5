"""Takes back what dead workers held, as often as there is more of it."""

from __future__ import annotations

import logging

from promptq.store import REAP_AT_MOST, JobStore, Reaped

log = logging.getLogger(__name__)

PASSES_AT_MOST = 100


def reap(store: JobStore, now: float) -> Reaped:
    """Reap until a pass finds less than a full batch; `now` in wall seconds. Tells the sum of what was done."""
    total = Reaped(0, 0, 0, 0)
    for _ in range(PASSES_AT_MOST):
        done = store.reap(now)
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
