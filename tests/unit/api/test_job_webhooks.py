"""Webhooks that a job or a response names: what is kept of them, what is refused, and the secret that signs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.current import services_of
from promptq.contract.job_webhooks import OwnWebhook
from promptq.contract.webhook_records import new_delivery
from promptq.queue.deliveries import Told
from promptq.queue.outbox import read
from tests.unit.api.conftest import ReadingClient
from tests.unit.api.test_files import ANN, BOB, http

__all__ = ["http"]
HOOK = {"url": "https://example.org/hook?job=1"}
CHAT = [{"role": "user", "content": "x"}]


def submit(http: ReadingClient, webhook: Any = HOOK, who: dict[str, str] = ANN, **headers: str) -> Any:
    return http.post("/v1/jobs", json={"prompt": "x", "webhook": webhook}, headers=who | headers)


def kept(http: ReadingClient, job_id: str) -> dict[str, Any]:
    raw: Any = http.store.client.hget(f"rq:job:{job_id}", "webhook")
    return dict(json.loads(raw))


def test_it_is_kept_with_the_job_and_no_secret_is(http: ReadingClient) -> None:
    job = submit(http, HOOK | {"events": ["job.failed"]}).json
    own = kept(http, job["id"])
    assert (own["url"], own["events"]) == (HOOK["url"], ["job.failed"])
    secret = http.get("/v1/webhook_secret", headers=ANN).json["secret"]
    assert secret.startswith("whsec_")
    assert secret not in str(own)
    assert kept(http, http.put("/v1/jobs/mine", json={"prompt": "y", "webhook": HOOK}, headers=ANN).json["id"])


def test_each_prompt_of_many_has_its_own_and_its_own_error(http: ReadingClient) -> None:
    jobs = [{"prompt": "a", "webhook": HOOK}, {"prompt": "b"}, {"prompt": "c", "webhook": {"url": "http://10.0.0.1/"}}]
    items = http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=ANN).json["items"]
    assert kept(http, items[0]["job"]["id"])["url"] == HOOK["url"]
    assert not http.store.client.hexists(f"rq:job:{items[1]['job']['id']}", "webhook")
    assert items[2]["error"]["param"] == "webhook.url"


def test_a_response_has_one_of_its_own_events(http: ReadingClient) -> None:
    def create(**fields: Any) -> Any:
        body = {"model": "echo", "input": "x", "background": True, "webhook": HOOK} | fields
        return http.post("/v1/responses", json=body, headers=ANN)

    made = create(webhook=HOOK | {"events": ["response.completed"]}).json
    assert kept(http, made["id"].removeprefix("resp_"))["events"] == ["response.completed"]
    for fields, param in (
        ({"webhook": HOOK | {"events": ["job.failed"]}}, "webhook.events.0"),
        ({"webhook": {"url": "http://localhost/"}}, "webhook.url"),
        ({"background": False, "store": False}, "store"),
    ):
        refused = create(**fields)
        assert (refused.status_code, refused.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("webhook", "param"),
    [
        ("https://example.org/", "webhook"), ({}, "webhook.url"), (HOOK | {"events": []}, "webhook.events"),
        (HOOK | {"events": ["response.completed"]}, "webhook.events.0"), (HOOK | {"secret": "x"}, "webhook.secret"),
        *(({"url": url}, "webhook.url") for url in (
            "ftp://example.org/", "https:///x", "http://127.0.0.1/", "http://127.1/", "http://2130706433/",
            "http://0x7f.0.0.1/", "http://[::1]/", "http://169.254.169.254/", "http://redis:6379/", "http://a.internal/",
            "http://LOCALHOST./", "http://x.local/", "http://[::ffff:10.0.0.1]/",
        )),
    ],
)  # fmt: skip
def test_what_is_malformed_or_private_is_named(http: ReadingClient, webhook: Any, param: str) -> None:
    answer = submit(http, webhook)
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)


def test_an_endpoint_is_not_made_for_a_private_address_either(http: ReadingClient) -> None:
    answer = http.post("/v1/webhook_endpoints", json={"url": "http://192.168.1.1/"}, headers=ANN)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "url")


def test_another_webhook_under_the_same_key_is_a_conflict(http: ReadingClient) -> None:
    first = submit(http, **{"Idempotency-Key": "k"})
    assert submit(http, **{"Idempotency-Key": "k"}).json["id"] == first.json["id"]
    for other in (None, {"url": "https://example.org/other"}):
        assert submit(http, other, **{"Idempotency-Key": "k"}).json["error"]["type"] == "idempotency_conflict"


def test_each_key_has_one_secret_for_all_its_jobs_which_rotates(http: ReadingClient) -> None:
    def secret(who: dict[str, str]) -> str:
        return str(http.get("/v1/webhook_secret", headers=who).json["secret"])

    assert secret(ANN) == secret(ANN) != secret(BOB)
    before = secret(ANN)
    rotated = http.post("/v1/webhook_secret/rotate", headers=ANN).json
    assert rotated["secret"] == secret(ANN) != before
    assert rotated["rotated_at"] > 0
    records = services_of(http.application).webhooks
    assert [records.rotate_secret("ann", version) for version in (1, 2, 2)] == [False, True, False]


def test_the_hosts_that_jobs_named_are_listed_and_cannot_be_tested(http: ReadingClient) -> None:
    parts = services_of(http.application)
    submit(http)
    http.store.client.xadd("promptq:outbox", {"kind": "job", "id": "j", "state": "failed", "owner": "ann"})
    (end,) = read(parts.store, 1)
    host = OwnWebhook(HOOK["url"], (), "check").endpoint("ann")
    delivery = new_delivery(end.event_id, host.id, "job.failed", "j", 1.0, HOOK["url"])
    parts.deliveries.note_all([Told(end, {}, (host, delivery))])
    assert http.get("/v1/webhook_endpoints", headers=ANN).json["data"] == []
    (listed,) = http.get("/v1/webhook_endpoints?of=jobs", headers=ANN).json["data"]
    assert (listed["id"], listed["url"], listed["dropped"]) == (host.id, "https://example.org", 0)
    (sent,) = http.get(f"/v1/webhook_endpoints/{host.id}/deliveries", headers=ANN).json["data"]
    assert (sent["url"], sent["event"]["data"]["id"]) == (HOOK["url"], "j")
    for call in ("rotate", "test"):
        assert http.post(f"/v1/webhook_endpoints/{host.id}/{call}", headers=ANN).status_code == 409
    assert http.post(f"/v1/webhook_endpoints/{host.id}/deliveries/{sent['id']}/redeliver", headers=ANN).json["id"]
    assert http.get(f"/v1/webhook_endpoints/{host.id}", headers=BOB).status_code == 404
    assert http.delete(f"/v1/webhook_endpoints/{host.id}", headers=ANN).json["deleted"] is True
    assert http.get("/v1/webhook_endpoints?of=jobs", headers=ANN).json["data"] == []


def test_too_many_events_that_wait_refuse_a_job_that_is_to_be_told_of(http: ReadingClient) -> None:
    http.store.settings = http.store.settings.model_copy(update={"max_outbox_events": 1})
    http.store.client.xadd("promptq:outbox", {"kind": "job"})
    refused = submit(http)
    assert (refused.status_code, refused.json["error"]["type"]) == (503, "webhooks_behind")
    assert refused.headers["Retry-After"]
    assert submit(http, None).status_code == 202
