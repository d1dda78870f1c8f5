"""The bound on what waits for one endpoint: over it the oldest deliveries are given up, and counted."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.webhook_records import Endpoint
from promptq.queue.deliveries import DeliveryRecords
from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

AT_ONCE: Final = 500
"""Deliveries of one endpoint that are given up in one round."""


class WaitingBound:
    """Gives up what is too much.

    Args:
        most: deliveries that may wait for one endpoint.
    """

    def __init__(self, store: JobStore, deliveries: DeliveryRecords, most: int, metrics: DispatcherMetrics) -> None:
        self._store = store
        self._deliveries = deliveries
        self._most = most
        self._metrics = metrics

    def apply(self, endpoint: Endpoint, waiting: int, known: Collection[str]) -> None:
        """Give up the oldest, if more wait than may.

        Args:
            waiting: how many wait.
            known: ids of those that are being sent, or are about to be: they stay.

        Raises:
            RedisUnavailable: those that were not given up still wait.
        """
        surplus = min(waiting - self._most, AT_ONCE)
        if surplus <= 0:
            return
        now, reason = self._store.now(), f"Given up: more than {self._most} deliveries waited."
        oldest = self._deliveries.oldest(endpoint.id, surplus + len(known))
        for delivery in [one for one in oldest if one.id not in known][:surplus]:
            after = replace(delivery, status="failed", trouble=reason, next_at=0.0, ended_at=now)
            self._deliveries.end_try(endpoint.id, after, dropped=True, jobs_of=endpoint.jobs_of)
            self._metrics.webhooks_dropped.inc()
        log.warning("Webhook endpoint %s: %d deliveries were given up, too many wait.", endpoint.id, surplus)
