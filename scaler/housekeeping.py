"""Looks after what nobody else does: jobs of an earlier version, of plain RQ, and those whose place is lost."""

from __future__ import annotations

from promptq.queue.reconcile import reconcile_some
from promptq.queue.rq_jobs import reap_rq
from promptq.queue.store import JobStore
from promptq.queue.upgrade import upgrade

SWEEP_SECONDS = 60.0
"""Between the beginnings of two looks through all jobs."""


class Housekeeping:
    """Keeps house once a round, before anything is reaped. `at` is in steady seconds."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._is_upgraded = False
        self._sweeps_at = 0.0
        self._cursor = 0

    def run(self, at: float) -> None:
        """Do what is due."""
        if not self._is_upgraded:
            # What is reaped before that loses what an earlier version kept elsewhere.
            upgrade(self._store)
            self._is_upgraded = True
        reap_rq(self._store)
        self._reconcile(at)

    def _reconcile(self, at: float) -> None:
        if not self._cursor and at < self._sweeps_at:
            return
        if not self._cursor:
            self._sweeps_at = at + SWEEP_SECONDS
        self._cursor, _ = reconcile_some(self._store, self._cursor)
