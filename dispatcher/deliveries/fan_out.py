"""From ends to deliveries: which events an end is, and which endpoints are sent them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from promptq.contract.job import Job
from promptq.contract.job_webhooks import HOSTS_PER_OWNER, OwnWebhook, shared_host
from promptq.contract.webhook_records import Delivery, Endpoint, new_delivery
from promptq.contract.webhooks import EVENT_TYPES
from promptq.openai.responses import ID_PREFIX, status_of
from promptq.queue.deliveries import DeliveryRecords, Told
from promptq.queue.outbox import End, read
from promptq.queue.store import JobStore
from promptq.queue.webhooks import WebhookRecords
from promptq.runtime import failpoints

ENDS_AT_ONCE: Final = 200
RESPONSE_STATES: Final[Mapping[str, str]] = {"succeeded": "completed", "cancelled": "cancelled"}
"""Of jobs that are read no more, or that were queued again."""


class FanOut:
    """Notes the deliveries of what is in the outbox. Several may do it at once: an end is noted once."""

    def __init__(self, store: JobStore, webhooks: WebhookRecords, deliveries: DeliveryRecords) -> None:
        self._store = store
        self._webhooks = webhooks
        self._deliveries = deliveries

    def run(self) -> bool:
        """Note some; whether there may be more.

        Raises:
            RedisUnavailable: what was not noted is still in the outbox.
        """
        ends = read(self._store, ENDS_AT_ONCE)
        if not ends:
            return False
        responses = [end.id for end in ends if end.kind == "response"]
        jobs = dict(zip(responses, self._store.get_many(responses), strict=True))
        endpoints = {owner: list(self._webhooks.of(owner)) for owner in {end.owner for end in ends}}
        own = self._own(ends, jobs)
        self._deliveries.note_all(
            Told(end, deliveries_of(end, jobs.get(end.id), endpoints[end.owner]), own.get(end.entry)) for end in ends
        )
        failpoints.hit("dispatcher.ends_noted")
        return len(ends) == ENDS_AT_ONCE

    def _own(self, ends: Sequence[End], jobs: Mapping[str, Job | None]) -> dict[str, tuple[Endpoint, Delivery]]:
        """By the end's entry, what its job's own webhook is told, and in which queue that waits."""
        found: dict[str, tuple[Endpoint, Delivery]] = {}
        host_of = cache(self._host)
        for end in (end for end in ends if end.webhook):
            own = OwnWebhook.decode(end.webhook)
            if own is None:
                continue
            host = host_of(own.endpoint(end.owner))
            if delivery := own_delivery(end, jobs.get(end.id), own, host):
                found[end.entry] = host, delivery
        return found

    def _host(self, host: Endpoint) -> Endpoint:
        """A host's queue, or where its owner has too many of these already the one that further hosts share."""
        if self._webhooks.count_hosts(host.owner) < HOSTS_PER_OWNER or self._webhooks.get(host.id):
            return host
        return shared_host(host)


def deliveries_of(end: End, job: Job | None, endpoints: Iterable[Endpoint]) -> dict[str, Delivery]:
    """By the endpoint's id, what an end is to be told as. Endpoints that are disabled are told nothing.

    Args:
        job: of a response, as it stands now, if it can be read.
        endpoints: of the owner.
    """
    event_type = type_of(end, job)
    return {
        endpoint.id: new_delivery(end.event_id, endpoint.id, event_type, data_of(end), end.at)
        for endpoint in endpoints
        if event_type in endpoint.events and not endpoint.disabled
    }


def own_delivery(end: End, job: Job | None, own: OwnWebhook, host: Endpoint) -> Delivery | None:
    """What a job's own webhook is told of its end; None: it did not ask for such an event."""
    event_type = type_of(end, job)
    if not event_type or (own.events and event_type not in own.events):
        return None
    return new_delivery(end.event_id, host.id, event_type, data_of(end), end.at, own.url)


def data_of(end: End) -> str:
    """The id that an event names."""
    return ID_PREFIX + end.id if end.kind == "response" else end.id


def type_of(end: End, job: Job | None) -> str:
    """The event that an end is; empty: none, so the entry is another program's."""
    state = end.state
    if end.kind == "response":
        is_as_it_ended = job is not None and job.status == state
        state = status_of(job) if is_as_it_ended and job else RESPONSE_STATES.get(state, "failed")
    event_type = f"{end.kind}.{state}"
    return event_type if event_type in EVENT_TYPES else ""
