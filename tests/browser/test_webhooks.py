"""Webhooks on the status page: endpoints, why one is sent nothing, what came of deliveries, and one sent again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from promptq.contract.job_webhooks import OwnWebhook
from promptq.contract.webhook_records import Endpoint, new_delivery
from promptq.queue.deliveries import DeliveryRecords, Told
from promptq.queue.outbox import End, read
from promptq.queue.webhooks import WebhookRecords
from tests.fakes import TimedStore, keys

REASON = "The receiver answered 410: it is gone."


def told_of_a_job(store: TimedStore, deliveries: DeliveryRecords) -> Endpoint:
    store.client.xadd(keys.outbox(), {"kind": "job", "id": "row-7", "state": "failed", "owner": ""})
    (end,) = read(store, 1)
    host = OwnWebhook("https://jobs.example/hook?row=7", (), "check").endpoint("")
    deliveries.note_all([Told(end, {}, (host, new_delivery(end.event_id, host.id, "job.failed", end.id, end.at)))])
    return host


def test_deliveries_are_shown_and_one_is_sent_again(page: Any, said: list[str], store: TimedStore) -> None:
    assert page.locator("#webhooks").is_hidden()
    webhooks, deliveries = WebhookRecords(store), DeliveryRecords(store)
    endpoint = Endpoint("we_1", "", "https://example.org/<b>hook</b>", ("batch.completed",), fingerprint="f")
    assert webhooks.put(endpoint)
    failed = new_delivery("evt_1", "we_1", "batch.completed", "batch_1", End("1-1", "", "", "", "", 1e9).at)
    assert deliveries.note("we_1", failed)
    assert deliveries.end_try("we_1", replace(failed, status="failed", tries=1, trouble="HTTP 410"), REASON)
    host = told_of_a_job(store, deliveries)
    row = page.locator("#endpoints tr", has=page.locator("[title='we_1']"))
    row.get_by_text(REASON).wait_for()
    assert "https://example.org/<b>hook</b>" in row.inner_text()
    of_jobs = page.locator("#endpoints tr", has=page.locator(f"[title='{host.id}']"))
    assert "https://jobs.example" in of_jobs.inner_text()
    page.click("[title='Deliveries to we_1']")
    sent = page.locator("#deliveries tr")
    sent.get_by_text("HTTP 410").wait_for()
    assert "batch.completed" in sent.inner_text()
    page.click(f"[title='Send {failed.id} again']")
    sent.get_by_text("pending").wait_for()
    row.get_by_text("enabled").wait_for()
    assert page.locator(f"[title='Send {failed.id} again']").count() == 0
    page.click(f"[title='Deliveries to {host.id}']")
    sent.get_by_text("row-7").wait_for()
    assert said == []
