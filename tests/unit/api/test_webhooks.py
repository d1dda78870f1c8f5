"""Webhook endpoints at the API: forms, secrets, lists, and whose they are. What is sent is the dispatcher's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.current import services_of
from promptq.contract.errors import SettingsError
from promptq.contract.webhooks import EVENT_TYPES
from promptq.runtime.secret_file import read_or_make
from tests.unit.api.conftest import ReadingClient
from tests.unit.api.test_files import ANN, BOB, http

__all__ = ["http"]
URL = "/v1/webhook_endpoints"


def create(http: ReadingClient, who: dict[str, str] = ANN, **fields: Any) -> Any:
    return http.post(URL, json={"url": "https://example.org/hook"} | fields, headers=who)


def test_the_secret_is_shown_once_and_kept_nowhere(http: ReadingClient) -> None:
    made = create(http).json
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made["events"] == list(EVENT_TYPES)
    assert http.get(f"{URL}/{made['id']}", headers=ANN).json == made
    rotated = http.post(f"{URL}/{made['id']}/rotate", headers=ANN).json
    assert rotated["secret"] not in (secret, "")
    assert rotated["rotated_at"] >= made["created_at"]
    kept = str([http.store.client.hgetall(f"promptq:webhook:{made['id']}")])
    assert secret not in kept
    assert rotated["secret"] not in kept


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"url": "ftp://example.org/"}, "url"), ({"url": "https:///x"}, "url"),
        ({"url": "https://a:b@example.org/"}, "url"),
        ({"url": "https://example.org:0/"}, "url"), ({"url": "https://example.org:99999/"}, "url"),
        ({"url": "https://example.org/#x"}, "url"), ({"url": "https://example.org/ x"}, "url"),
        ({"url": "https://exämple.org/"}, "url"), ({"url": "https://[/"}, "url"),
        ({"events": ["job.done"]}, "events.0"), ({"events": []}, "events"), ({"secret": "mine"}, "secret"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(http: ReadingClient, fields: dict[str, Any], param: str) -> None:
    answer = create(http, **fields)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, param)


def test_lists_have_pages_and_are_each_keys_own(http: ReadingClient) -> None:
    ids = [create(http).json["id"] for _ in range(3)][::-1]
    page = http.get(f"{URL}?limit=2", headers=ANN).json
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[:2], True)
    rest = http.get(f"{URL}?after={page['last_id']}", headers=ANN).json
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert http.get(URL, headers=BOB).json["data"] == []
    for method, path in (
        ("GET", ids[0]), ("DELETE", ids[0]), ("POST", f"{ids[0]}/rotate"), ("POST", f"{ids[0]}/test"),
        ("GET", f"{ids[0]}/deliveries"), ("POST", f"{ids[0]}/deliveries/x/redeliver"), ("GET", "wë"),
    ):  # fmt: skip
        answer = http.open(f"{URL}/{path}", method=method, headers=BOB)
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "webhook_not_found"), path
    assert http.delete(f"{URL}/{ids[0]}", headers=ANN).json["deleted"] is True
    assert http.get(f"{URL}/{ids[0]}", headers=ANN).status_code == 404
    assert [create(http).status_code for _ in range(19)] == [200] * 18 + [409]


def test_a_test_and_a_redelivery_are_to_be_sent_and_enable_the_endpoint(http: ReadingClient) -> None:
    path, records = f"{URL}/{create(http).json['id']}", services_of(http.application).deliveries
    sent = http.post(f"{path}/test", headers=ANN).json
    assert (sent["status"], sent["event"]["type"]) == ("pending", "endpoint.test")
    endpoint_id = path.rpartition("/")[2]
    (delivery,) = records.of(endpoint_id)
    records.end_try(endpoint_id, replace(delivery, status="failed", tries=10, trouble="HTTP 500"), "Ten tries failed.")
    assert http.get(path, headers=ANN).json["disabled_reason"] == "Ten tries failed."
    (listed,) = http.get(f"{path}/deliveries", headers=ANN).json["data"]
    assert (listed["status"], listed["tries"], listed["last_error"]) == ("failed", 10, "HTTP 500")
    again = http.post(f"{path}/deliveries/{sent['id']}/redeliver", headers=ANN).json
    assert (again["status"], again["tries"], again["event"]) == ("pending", 0, sent["event"])
    assert http.get(path, headers=ANN).json["disabled_reason"] is None
    missing = http.post(f"{path}/deliveries/nosuch/redeliver", headers=ANN)
    assert (missing.status_code, missing.json["error"]["param"]) == (404, "delivery")


def test_a_secret_file_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "webhook.secret"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: read_or_make("S", path), range(16)))
    assert len(found) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    path.write_text("short")
    with pytest.raises(SettingsError, match=r"S: .* fewer than 32"):
        read_or_make("S", path)
