"""The duty of deliveries: notes what is to be sent to whom, and sends it. One dispatcher has it at a time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from dispatcher.deliveries.egress import CheckedBackend
from dispatcher.deliveries.endpoint_queue import MOST, EndpointQueue
from dispatcher.deliveries.fan_out import FanOut
from dispatcher.deliveries.plan import Answer, Delivered, GiveUp, next_step
from dispatcher.deliveries.sender import send
from dispatcher.deliveries.waiting_bound import WaitingBound
from dispatcher.lease_keeper import LeaseKeeper
from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.settings import DispatcherSettings
from promptq.contract.webhook_records import Delivery, Endpoint
from promptq.contract.webhooks import body_of, signed_headers
from promptq.queue.deliveries import DeliveryRecords
from promptq.queue.outbox import length
from promptq.queue.store import JobStore
from promptq.queue.webhooks import WebhookRecords
from promptq.runtime import failpoints
from promptq.runtime.secret_file import read_or_make

log = logging.getLogger(__name__)

LEASE: Final = "deliveries"
THREADS: Final = 256
"""Of all endpoints together; each is at most one try, and most of them wait for somebody's response."""
OTHER_SECRET: Final = "The dispatcher has not the secret that the endpoint was made with."
NOTE_SECONDS, NOTE_TIMES = 0.5, 60
"""How long what came of a try is kept for a Redis that does not answer: forgotten, the event is sent once more."""


class DeliveriesDuty:
    """Sends events, each endpoint's in a queue of its own.

    A delivery is taken, sent, and then written down as sent: a process that is killed in between sends it once more,
    under the same id.
    """

    name = "deliveries"

    def __init__(
        self, settings: DispatcherSettings, store: JobStore, leases: LeaseKeeper, metrics: DispatcherMetrics
    ) -> None:
        self.is_busy = False
        self._settings = settings
        self._store = store
        self._leases = leases
        self._metrics = metrics
        self._webhooks = WebhookRecords(store)
        self._deliveries = DeliveryRecords(store)
        self._fan_out = FanOut(store, self._webhooks, self._deliveries)
        self._bound = WaitingBound(store, self._deliveries, settings.webhook_max_waiting, metrics)
        self._queues: dict[str, EndpointQueue] = {}
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="delivery")
        self._stopping = threading.Event()
        self._token = self._secret = ""

    def run(self) -> None:
        """One round.

        Raises:
            RedisUnavailable: the next round goes on.
            SettingsError: the file of the secret cannot be used.
        """
        if not self._holds():
            self._forget(set())
            self._tell(0, 0)  # who has the lease tells it
            self.is_busy = False
            return
        has_more = self._fan_out.run()
        active = self._webhooks.active()
        waiting = self._deliveries.waiting(active) if active else {}
        if active:
            self._secret = self._secret or self._read_secret()
            self._send(active, waiting)
        self._forget(set(active))
        self._tell(sum(waiting.values()), length(self._store))
        self.is_busy = has_more or any(queue.known for queue in self._queues.values())

    def close(self) -> None:
        """What is being sent is waited for, so that it is not sent once more."""
        self._stopping.set()
        self._forget(set())
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _holds(self) -> bool:
        if not (self._token and self._leases.holds(LEASE, self._token)):
            self._token = self._leases.take(LEASE)
        return bool(self._token)

    def _read_secret(self) -> str:
        path: Path = self._settings.webhook_secret_path(self._settings.data_dir)
        return read_or_make("PROMPTQ_WEBHOOK_SECRET_FILE", path)

    def _tell(self, waiting: int, ends: int) -> None:
        self._metrics.webhooks_waiting.set(waiting)
        self._metrics.outbox_events.set(ends)

    def _send(self, active: list[str], waiting: Mapping[str, int]) -> None:
        """Hand what is due to the endpoints' threads."""
        # Before what is due is read: what ends in between would else be taken for new.
        known = {one: self._queues[one].known if one in self._queues else frozenset() for one in active}
        due = self._deliveries.due(active, MOST)
        for endpoint in self._webhooks.signing(active):
            if endpoint.disabled:
                continue
            ids = [one for one in due[endpoint.id] if one not in known[endpoint.id]]
            queue = self._queues.setdefault(endpoint.id, EndpointQueue(endpoint))
            queue.endpoint = endpoint
            for _ in range(queue.add(self._deliveries.get_many(endpoint.id, ids))):
                self._executor.submit(self._drain, queue)
            self._bound.apply(endpoint, waiting[endpoint.id], queue.known)

    def _forget(self, active: set[str]) -> None:
        """Send nothing more to the others."""
        for endpoint_id in self._queues.keys() - active:
            self._queues[endpoint_id].clear()
            if not self._queues[endpoint_id].known:
                del self._queues[endpoint_id]

    def _drain(self, queue: EndpointQueue) -> None:
        """Send what an endpoint has, one after the other: the work of one thread."""
        while delivery := queue.take():
            succeeded = False
            try:
                succeeded = self._try(queue, delivery)
            except RedisUnavailable as error:
                log.info("Delivery %s waits: %s", delivery.id, error)
            except Exception:
                log.exception("Delivery %s was not tried; the next round goes on.", delivery.id)
            finally:
                queue.done(delivery, succeeded=succeeded)

    def _try(self, queue: EndpointQueue, delivery: Delivery) -> bool:
        # The server's clock, which must answer before the event is sent and need not after.
        now, began = self._store.now(), time.monotonic()
        answer = self._answer(queue.endpoint, delivery, now)
        failpoints.hit("dispatcher.sent")
        now += time.monotonic() - began
        tries, disabled = delivery.tries + 1, ""
        step = next_step(answer, tries, random.random())
        if isinstance(step, Delivered):
            after, outcome = replace(delivery, status="delivered", trouble="", next_at=0.0, ended_at=now), "delivered"
        elif isinstance(step, GiveUp):
            after = replace(delivery, status="failed", trouble=step.reason, next_at=0.0, ended_at=now)
            outcome = "failed"
            # A job's webhook says nothing of others at the same host.
            disabled = step.reason if step.disables and not queue.endpoint.is_of_jobs else ""
        else:
            after, outcome = replace(delivery, trouble=step.reason, next_at=now + step.after), "retried"
        self._note(queue.endpoint, replace(after, tries=tries), disabled)
        if disabled:
            log.warning("Webhook endpoint %s is disabled: %s", queue.endpoint.id, disabled)
            self._metrics.webhooks_disabled.inc()
            queue.clear()
        self._metrics.webhook_tries.labels(outcome).inc()
        return outcome == "delivered"

    def _answer(self, endpoint: Endpoint, delivery: Delivery, now: float) -> Answer:
        if not endpoint.has_secret_of(self._secret):
            return Answer(trouble=OTHER_SECRET)
        body = body_of(delivery.event, delivery.type, delivery.created_at, delivery.data)
        headers = signed_headers(delivery.event, now, body, endpoint.secrets(self._secret, now))
        backend = CheckedBackend(
            self._settings.webhook_timeout_seconds, allows_private=self._settings.webhook_allow_private
        )
        return send(delivery.url or endpoint.url, headers, body, backend)

    def _note(self, endpoint: Endpoint, delivery: Delivery, disabled: str) -> None:
        """Write down what came of a try."""
        for _ in range(NOTE_TIMES):
            try:
                self._deliveries.end_try(endpoint.id, delivery, disabled, jobs_of=endpoint.jobs_of)
                return
            except RedisUnavailable:
                if self._stopping.wait(NOTE_SECONDS):
                    break
        log.warning("What came of delivery %s is not written down: it is sent once more.", delivery.id)
