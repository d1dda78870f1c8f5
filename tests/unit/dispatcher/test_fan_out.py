"""Which event an end is, who is told, and an endpoint's queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.deliveries import fan_out
from dispatcher.deliveries.endpoint_queue import AT_ONCE, EndpointQueue
from dispatcher.deliveries.fan_out import FanOut, deliveries_of, own_delivery, type_of
from promptq.contract.job_webhooks import OwnWebhook
from promptq.contract.webhook_records import Endpoint, new_delivery
from promptq.queue.deliveries import DeliveryRecords
from promptq.queue.outbox import End
from promptq.queue.webhooks import WebhookRecords
from tests.fakes import TimedStore, keys, new_job, success

END = End("1-1", "job", "job", "failed", "ann", 1.0)
ENDPOINT = Endpoint("we_1", "ann", "http://x/", ("job.failed", "response.completed"))


@pytest.mark.parametrize(
    ("kind", "state", "event_type"),
    [
        ("job", "expired", "job.expired"), ("batch", "completed", "batch.completed"), ("batch", "succeeded", ""),
        ("response", "succeeded", "response.completed"), ("response", "expired", "response.failed"),
        ("response", "cancelled", "response.cancelled"), ("", "", ""), ("else", "failed", ""),
    ],
)  # fmt: skip
def test_an_end_is_an_event_or_another_programs(kind: str, state: str, event_type: str) -> None:
    assert type_of(replace(END, kind=kind, state=state), None) == event_type


def test_a_response_that_was_cut_off_is_incomplete(fake_store: TimedStore) -> None:
    fake_store.submit(new_job(job_id="job"))
    (claim,) = fake_store.claim("w", 1)
    ending = success(claim)
    assert ending.result
    fake_store.finish("w", [replace(ending, result=replace(ending.result, finish_reason="length"))])
    end = replace(END, kind="response", state="succeeded")
    assert type_of(end, fake_store.get("job")) == "response.incomplete"
    assert type_of(replace(end, state="failed"), fake_store.get("job")) == "response.failed", "an earlier end of it"


def test_endpoints_that_chose_it_and_are_not_disabled_are_told_under_one_id() -> None:
    endpoints = [ENDPOINT, replace(ENDPOINT, id="we_2"), replace(ENDPOINT, id="we_3", events=("job.succeeded",)),
                 replace(ENDPOINT, id="we_4", disabled="gone")]  # fmt: skip
    found = deliveries_of(END, None, endpoints)
    assert set(found) == {"we_1", "we_2"}
    assert len({one.event for one in found.values()}) == 1
    assert len({one.id for one in found.values()}) == 2
    assert found == deliveries_of(END, None, endpoints), "the same when it is told once more"
    response = replace(END, kind="response", state="succeeded")
    assert deliveries_of(response, None, endpoints)["we_1"].data == "resp_job"


def test_a_jobs_own_webhook_is_told_what_it_asked_for(fake_store: TimedStore) -> None:
    own = OwnWebhook("https://x.org:8443/a?b=1", ("job.failed",), "check")
    host = own.endpoint("ann")
    delivery = own_delivery(END, None, own, host)
    assert delivery
    assert (delivery.url, delivery.type, delivery.event) == (own.url, "job.failed", END.event_id)
    assert own_delivery(replace(END, state="succeeded"), None, own, host) is None
    every = replace(own, events=())
    assert own_delivery(replace(END, state="succeeded"), None, every, host)
    assert own_delivery(replace(END, kind="else"), None, every, host) is None
    assert host.url == "https://x.org:8443"
    assert own.endpoint("ann") == replace(own, url="https://X.ORG:8443/other").endpoint("ann")
    assert own.endpoint("bob").id != host.id


@pytest.mark.parametrize("text", ["{", "7", "{}", '{"url": 7, "events": [], "check": ""}', '{"url": "x", "events": 1}'])
def test_what_another_program_wrote_keeps_no_event_back(fake_store: TimedStore, text: str) -> None:
    assert OwnWebhook.decode(text) is None
    entry = {"kind": "job", "id": "job", "state": "failed", "owner": "ann", "webhook": text}
    fake_store.client.xadd(keys.outbox(), entry)
    FanOut(fake_store, WebhookRecords(fake_store), DeliveryRecords(fake_store)).run()
    assert fake_store.client.xlen(keys.outbox()) == 0


def test_hosts_over_the_bound_share_one_queue(fake_store: TimedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "HOSTS_PER_OWNER", 2)
    webhooks, deliveries = WebhookRecords(fake_store), DeliveryRecords(fake_store)
    for name in ("a", "b", "c", "a", "d"):
        own = OwnWebhook(f"https://{name}.org/", (), "check").encode()
        entry = {"kind": "job", "id": "job", "state": "failed", "owner": "ann", "webhook": own}
        fake_store.client.xadd(keys.outbox(), entry)
        assert not FanOut(fake_store, webhooks, deliveries).run()
    waiting = {one.url: len(list(deliveries.of(one.id))) for one in webhooks.hosts_of("ann")}
    assert waiting == {"https://a.org": 2, "https://b.org": 1, "*": 2}


def test_a_queue_sends_four_at_once_and_one_while_it_fails() -> None:
    queue = EndpointQueue(ENDPOINT)
    some = [new_delivery(f"evt_{number}", "we_1", "job.failed", "job", 1.0) for number in range(10)]
    assert queue.add(some[:1]) == 1
    assert queue.add(some[1:]) == AT_ONCE - 1
    taken = [queue.take() for _ in range(AT_ONCE)]
    assert taken == some[:AT_ONCE]
    queue.done(some[0], succeeded=False)
    assert queue.take() is None, "three still send, and one may"
    assert queue.add([]) == 0
    queue.clear()
    assert set(queue.known) == {one.id for one in some[1:AT_ONCE]}
    for delivery in some[1:AT_ONCE]:
        queue.done(delivery, succeeded=True)
        assert queue.take() is None
    assert (queue.add(some), set(queue.known)) == (AT_ONCE, {one.id for one in some})
