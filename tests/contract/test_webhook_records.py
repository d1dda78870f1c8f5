"""Endpoints and deliveries in Redis. On fakeredis and on a real server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.deliveries.waiting_bound import WaitingBound
from promptq.contract.batches import BatchRecord
from promptq.contract.files import FileRecord
from promptq.contract.job_webhooks import OwnWebhook
from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.webhook_records import (
    ENDED_KEPT,
    ENDPOINTS_PER_OWNER,
    IDLE_SECONDS,
    Delivery,
    Endpoint,
    new_delivery,
)
from promptq.queue.batches import LEASE, BatchRecords
from promptq.queue.deliveries import DeliveryRecords, Told
from promptq.queue.files import FileRecords
from promptq.queue.leases import hold
from promptq.queue.outbox import End, read
from promptq.queue.webhooks import WebhookRecords
from tests.fakes import TimedStore, keys

END = End("1-1", "job", "job", "succeeded", "ann", 1.0)


@pytest.fixture
def webhooks(store: TimedStore) -> WebhookRecords:
    records = WebhookRecords(store)
    assert records.put(Endpoint("we_1", "ann", "http://x/", ("job.succeeded", "job.failed"), fingerprint="f"))
    return records


@pytest.fixture
def deliveries(store: TimedStore) -> DeliveryRecords:
    return DeliveryRecords(store)


def found(webhooks: WebhookRecords, endpoint_id: str = "we_1") -> Endpoint:
    endpoint = webhooks.get(endpoint_id)
    assert endpoint is not None
    return endpoint


def noted(deliveries: DeliveryRecords, event: str = "evt_1") -> Delivery:
    delivery = new_delivery(event, "we_1", "job.succeeded", "job", 1.0)
    assert deliveries.note("we_1", delivery)
    return delivery


def test_an_endpoint_is_as_it_was_put_until_it_is_dropped_with_all_that_was_its(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    made = found(webhooks)
    assert (made.owner, made.events, made.version, made.disabled) == ("ann", ("job.succeeded", "job.failed"), 1, "")
    noted(deliveries)
    webhooks.drop(made)
    assert webhooks.get("we_1") is None
    assert list(store.client.keys("promptq:*")) == []


def test_a_key_has_so_many_endpoints_and_no_more(webhooks: WebhookRecords) -> None:
    more = [webhooks.put(Endpoint(f"we_{number}", "ann", "http://x/", ("job.failed",))) for number in range(2, 30)]
    assert more.count(True) == ENDPOINTS_PER_OWNER - 1
    assert webhooks.put(Endpoint("we_bob", "bob", "http://x/", ("job.failed",)))
    assert len(list(webhooks.of("ann"))) == ENDPOINTS_PER_OWNER


def test_two_rotations_at_once_are_one(webhooks: WebhookRecords) -> None:
    before = webhooks.get("we_1")
    assert before is not None
    assert [webhooks.rotate(before, "g"), webhooks.rotate(before, "h")] == [True, False]
    after = webhooks.get("we_1")
    assert after is not None
    assert (after.version, after.fingerprint) == (2, "g")
    assert len(after.secrets("s", after.rotated_at + 1)) == 2
    assert len(after.secrets("s", after.rotated_at + 90_000)) == 1


def test_an_end_leaves_the_outbox_with_its_deliveries_noted_once(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    store.client.xadd(keys.outbox(), {"kind": "job", "id": "job", "state": "succeeded", "owner": "ann"})
    (end,) = read(store, 10)
    delivery = new_delivery(end.event_id, "we_1", "job.succeeded", "job", end.at)
    for _ in range(2):  # once more, as after an answer that was lost
        deliveries.note_all([Told(end, {"we_1": delivery, "we_gone": delivery})])
    assert read(store, 10) == []
    assert list(deliveries.of("we_1")) == [delivery]
    assert deliveries.due(["we_1", "we_gone"], 10) == {"we_1": [delivery.id], "we_gone": []}
    assert webhooks.active() == ["we_1"]


def test_a_delivery_is_due_again_or_has_ended(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    delivery = noted(deliveries)
    later = replace(delivery, tries=1, trouble="HTTP 500", next_at=store.now() + 100)
    assert deliveries.end_try("we_1", later)
    assert deliveries.due(["we_1"], 10) == {"we_1": []}
    assert (deliveries.waiting(["we_1"]), webhooks.active()) == ({"we_1": 1}, ["we_1"])
    assert deliveries.get_many("we_1", [delivery.id]) == [later]
    assert deliveries.end_try("we_1", replace(delivery, tries=2, status="delivered"))
    assert (deliveries.waiting(["we_1"]), webhooks.active()) == ({"we_1": 0}, [])
    assert not deliveries.end_try("we_1", later), "it has ended"
    assert deliveries.send_again(found(webhooks), later)
    assert deliveries.due(["we_1"], 10) == {"we_1": [delivery.id]}
    assert deliveries.get_many("we_1", [delivery.id]) == [delivery]


def test_a_disabled_endpoint_keeps_what_waits_until_it_is_enabled(
    webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    first, second = noted(deliveries), noted(deliveries, "evt_2")
    assert deliveries.end_try("we_1", replace(first, status="failed"), "gone")
    disabled = webhooks.get("we_1")
    assert disabled is not None
    assert (disabled.disabled, disabled.disabled_at > 0, webhooks.active()) == ("gone", True, [])
    assert deliveries.send_again(disabled, None)
    enabled = webhooks.get("we_1")
    assert enabled is not None
    assert (enabled.disabled, webhooks.active()) == ("", ["we_1"])
    assert deliveries.due(["we_1"], 10) == {"we_1": [second.id]}


def test_the_oldest_that_have_ended_make_room(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    store.client.zadd(keys.deliveries_ended("we_1"), {f"old-{number}": number for number in range(ENDED_KEPT)})
    store.client.hset(keys.deliveries("we_1"), "old-0", "{}")
    deliveries.end_try("we_1", replace(noted(deliveries), status="delivered"))
    assert store.client.zcard(keys.deliveries_ended("we_1")) == ENDED_KEPT
    assert not store.client.hexists(keys.deliveries("we_1"), "old-0")


def test_a_batchs_end_is_told(store: TimedStore, webhooks: WebhookRecords) -> None:
    FileRecords(store).put(FileRecord("file-in", "ann", "in.jsonl", "batch", 1), None)
    batches = BatchRecords(store)
    batches.create(BatchRecord("batch_1", "ann", "/v1/x", "file-in", "24h", "validating", 0.0, output_file_id="o",
                               error_file_id="e"))  # fmt: skip
    hold(store, LEASE + "batch_1", "token")
    assert batches.move("batch_1", "token", ["validating"], "in_progress")
    assert read(store, 10) == []
    assert batches.move("batch_1", "token", ["in_progress"], "completed", keep_seconds=60)
    (end,) = read(store, 10)
    assert (end.kind, end.id, end.state, end.owner) == ("batch", "batch_1", "completed", "ann")


OWN = OwnWebhook("https://Example.org/hook?job=1", (), "check")


def told_to_a_host(store: TimedStore, deliveries: DeliveryRecords) -> tuple[Endpoint, Delivery]:
    store.client.xadd(keys.outbox(), {"kind": "job", "id": "job", "state": "failed", "owner": "ann"})
    (end,) = read(store, 10)
    host = OWN.endpoint("ann")
    delivery = new_delivery(end.event_id, host.id, "job.failed", "job", end.at, OWN.url)
    deliveries.note_all([Told(end, {}, (host, delivery))])
    return host, delivery


def test_a_hosts_queue_comes_with_its_first_event_and_goes_a_day_after_its_last(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    host, delivery = told_to_a_host(store, deliveries)
    own = [key(host.id) for key in (keys.webhook, keys.deliveries, keys.delivery_order, keys.deliveries_ended)]
    assert (found(webhooks, host.id).url, webhooks.active()) == ("https://example.org", [host.id])
    assert [one.id for one in webhooks.hosts_of("ann")] == [host.id]
    assert {store.client.ttl(key) for key in own} <= {-1, -2}
    assert deliveries.end_try(host.id, replace(delivery, status="failed"), jobs_of="ann")
    assert all(0 < store.client.ttl(key) <= IDLE_SECONDS for key in own)
    assert deliveries.send_again(host, delivery)
    assert {store.client.ttl(key) for key in own} <= {-1, -2}
    assert (webhooks.count_hosts("ann"), webhooks.count_hosts("bob")) == (1, 0)
    assert deliveries.end_try(host.id, replace(delivery, status="delivered"), jobs_of="ann")
    store.client.zadd(keys.webhook_hosts("ann"), {"wj_old": 1.0})
    told_to_a_host(store, deliveries)
    assert webhooks.count_hosts("ann") == 1, "what is a day old is trimmed"
    webhooks.drop(host)
    assert list(webhooks.hosts_of("ann")) == []


def test_a_hosts_events_are_signed_with_the_owners_secret_as_it_stands(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    host, _ = told_to_a_host(store, deliveries)
    assert webhooks.rotate_secret("ann", 1)
    made, of_jobs = webhooks.signing(["we_1", host.id, "we_gone"])
    assert (made.version, of_jobs.version) == (1, 2)
    other = replace(of_jobs, id="wj_other")
    assert len(of_jobs.secrets("s", store.now())) == 2
    assert of_jobs.secrets("s", store.now()) == other.secrets("s", store.now()), "one secret for all hosts"


def test_the_oldest_that_wait_are_given_up_over_the_bound_and_counted(
    store: TimedStore, webhooks: WebhookRecords, deliveries: DeliveryRecords
) -> None:
    some = [noted(deliveries, f"evt_{number}") for number in range(5)]
    deliveries.end_try("we_1", replace(some[0], status="delivered"))
    deliveries.end_try("we_1", replace(some[1], tries=3, next_at=store.now() + 100))
    metrics = DispatcherMetrics(CollectorRegistry())
    bound = WaitingBound(store, deliveries, 2, metrics)
    bound.apply(found(webhooks), deliveries.waiting(["we_1"])["we_1"], {some[2].id})
    ended = {one.id: one for one in deliveries.of("we_1") if one.status == "failed"}
    assert set(ended) == {some[1].id, some[3].id}, "the oldest, but for what is being sent"
    assert ended[some[1].id].trouble == "Given up: more than 2 deliveries waited."
    assert (found(webhooks).dropped, deliveries.waiting(["we_1"])) == (2, {"we_1": 2})
    bound.apply(found(webhooks), 2, set())
    assert found(webhooks).dropped == 2
    assert deliveries.send_again(found(webhooks), ended[some[1].id]), "by hand it is sent all the same"
