"""Files and batches at the API: forms, ranges, lists, and whose they are. What a batch does is the dispatcher's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from api.api_keys import digest
from api.app import create_app
from api.current import services_of
from promptq.contract.settings import ApiSettings
from promptq.queue.batches import BatchRecords
from tests.fakes import TimedStore, fake_redis
from tests.unit.api.conftest import ReadingClient, SilentListener

KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}
ANN, BOB = ({"Authorization": f"Bearer {key}"} for key in KEYS.values())
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "echo", "prompt": "x"}}
CONTENT = json.dumps(LINE).encode() + b"\n"


@pytest.fixture
def http(tmp_path: Path) -> ReadingClient:
    file = tmp_path / "keys"
    file.write_text("".join(f"{name} {digest(key)}\n" for name, key in KEYS.items()))
    settings = ApiSettings(
        _env_file=None, engine="echo", api_keys_file=str(file), data_dir=tmp_path / "data", max_file_bytes=300_000
    )
    store = TimedStore(fake_redis(), settings)
    client: Any = create_app(settings, store, SilentListener).test_client()
    client.store = store
    return client


def upload(http: ReadingClient, content: bytes = CONTENT, who: dict[str, str] = ANN, **fields: str) -> Any:
    form = {"purpose": "batch", "file": (io.BytesIO(content), "in.jsonl")} | fields
    return http.post("/v1/files", data=form, headers=who)


def stored(http: ReadingClient) -> list[str]:
    folder = services_of(http.application).settings.data_dir / "files/files"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_a_file_as_openai_shows_it(http: ReadingClient) -> None:
    made = upload(http, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}).json
    assert {name: made[name] for name in ("object", "bytes", "filename", "purpose", "status", "status_details")} == {
        "object": "file", "bytes": len(CONTENT), "filename": "in.jsonl", "purpose": "batch", "status": "processed",
        "status_details": None,
    }  # fmt: skip
    assert made["expires_at"] - made["created_at"] == 3600
    assert http.get(f"/v1/files/{made['id']}", headers=ANN).json == made
    assert stored(http) == [made["id"]]


def test_a_file_of_many_reads_is_kept_as_it_came(http: ReadingClient) -> None:
    content = b"".join(json.dumps(LINE | {"custom_id": str(number)}).encode() + b"\n" for number in range(2500))
    assert len(content) > 200_000
    made = upload(http, content).json
    assert (made["status"], made["bytes"]) == ("processed", len(content))
    assert http.get(f"/v1/files/{made['id']}/content", headers=ANN).data == content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({"unheard": "1"}, "unheard"),
        ({"expires_after[seconds]": "5"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "x"}, "expires_after[seconds]"),
        ({"file": "no file"}, "file"),
    ],
)
def test_a_form_that_is_wrong_leaves_no_bytes(http: ReadingClient, fields: dict[str, str], param: str) -> None:
    answer = upload(http, **fields)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, param)
    assert stored(http) == []


def test_what_is_no_form_or_too_large_leaves_no_bytes(http: ReadingClient) -> None:
    assert http.post("/v1/files", json={"purpose": "batch"}, headers=ANN).status_code == 400
    assert http.post("/v1/files", data={"purpose": "batch"}, headers=ANN).json["error"]["param"] == "file"
    torn = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{'
    answer = http.post("/v1/files", data=torn, content_type="multipart/form-data; boundary=x", headers=ANN)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "unreadable_body")
    assert upload(http, b"x" * 300_001).status_code == 413
    two = {"purpose": "batch", "file": [(io.BytesIO(b"a"), "a"), (io.BytesIO(b"b"), "b")]}
    assert http.post("/v1/files", data=two, headers=ANN).status_code == 400
    assert stored(http) == []


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        (None, 200, CONTENT),
        ("bytes=0-4", 206, CONTENT[:5]),
        ("bytes=10-", 206, CONTENT[10:]),
        ("bytes=-3", 206, CONTENT[-3:]),
        ("bytes=5-10000", 206, CONTENT[5:]),
        ("bytes=10000-", 416, None),
        ("bytes=0-1,3-4", 200, CONTENT),
        ("lines=1-2", 200, CONTENT),
        ("nonsense", 200, CONTENT),
    ],
)
def test_content_and_ranges_of_it(http: ReadingClient, asked: str | None, status: int, expected: bytes | None) -> None:
    file_id = upload(http).json["id"]
    answer = http.get(f"/v1/files/{file_id}/content", headers=ANN | ({"Range": asked} if asked else {}))
    assert answer.status_code == status
    if expected is not None:
        assert answer.data == expected
        assert answer.headers["Content-Length"] == str(len(expected))
        assert "X-Incomplete" not in answer.headers


def test_bytes_that_the_storage_has_lost_are_404(http: ReadingClient) -> None:
    file_id = upload(http).json["id"]
    (services_of(http.application).settings.data_dir / "files/files" / file_id).unlink()
    answer = http.get(f"/v1/files/{file_id}/content", headers=ANN)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "object_missing")


def test_files_and_batches_are_their_keys_own(http: ReadingClient) -> None:
    file_id = upload(http).json["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "1h"}
    batch_id = http.post("/v1/batches", json=body, headers=ANN).json["id"]
    for method, path in (
        ("GET", f"/v1/files/{file_id}"), ("GET", f"/v1/files/{file_id}/content"), ("DELETE", f"/v1/files/{file_id}"),
        ("GET", f"/v1/batches/{batch_id}"), ("POST", f"/v1/batches/{batch_id}/cancel"),
        ("POST", f"/v1/batches/{batch_id}/retry"), ("GET", "/v1/files/fïle"), ("GET", "/v1/batches/b%00"),
    ):  # fmt: skip
        assert http.open(path, method=method, headers=BOB).status_code == 404, (method, path)
    assert http.post("/v1/batches", json=body, headers=BOB).json["error"]["param"] == "input_file_id"
    for path in ("/v1/files", "/v1/batches"):
        assert http.get(path, headers=BOB).json["data"] == []
        assert len(http.get(path, headers=ANN).json["data"]) == 1
    assert http.delete(f"/v1/files/{file_id}", headers=ANN).status_code == 409, "the batch needs it"


def test_lists_go_on_behind_any_file(http: ReadingClient) -> None:
    ids = [upload(http).json["id"] for _ in range(5)]
    first = http.get("/v1/files?limit=2&order=asc", headers=ANN).json
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = http.get(f"/v1/files?order=asc&after={first['last_id']}", headers=ANN).json
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert [one["id"] for one in http.get("/v1/files", headers=ANN).json["data"]] == ids[::-1]
    assert http.get("/v1/files?purpose=batch_output", headers=ANN).json["data"] == []
    assert http.delete(f"/v1/files/{ids[0]}", headers=ANN).json == {"id": ids[0], "object": "file", "deleted": True}
    assert ids[0] not in stored(http)


def test_a_list_does_not_begin_anew_behind_what_is_not_in_it(http: ReadingClient) -> None:
    hook = {"url": "https://example.org/hook"}
    endpoint = http.post("/v1/webhook_endpoints", json=hook, headers=ANN).json["id"]
    for path in (
        "/v1/files?", "/v1/files?order=asc&", "/v1/batches?", "/v1/webhook_endpoints?",
        "/v1/webhook_endpoints?of=jobs&", f"/v1/webhook_endpoints/{endpoint}/deliveries?",
    ):  # fmt: skip
        answer = http.get(f"{path}after=gone", headers=ANN)
        assert (answer.status_code, answer.json["error"]["param"]) == (400, "after"), path


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"completion_window": "59s"}, "completion_window"),
        ({"completion_window": 24}, "completion_window"),
        ({"endpoint": "/v1/jobs"}, "endpoint"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_a_batch_that_is_wrong_names_the_field(http: ReadingClient, changes: dict[str, Any], param: str) -> None:
    right = {"input_file_id": upload(http).json["id"], "endpoint": "/v1/completions", "completion_window": "1h"}
    answer = http.post("/v1/batches", json=right | changes, headers=ANN)
    assert (answer.status_code, answer.json["error"]["param"]) == (404 if param == "input_file_id" else 400, param)


def test_a_key_makes_one_batch(http: ReadingClient) -> None:
    body = {"input_file_id": upload(http).json["id"], "endpoint": "/v1/completions", "completion_window": "1h"}
    key = {"Idempotency-Key": "mine"}
    first, again = (http.post("/v1/batches", json=body, headers=ANN | key).json for _ in range(2))
    assert first["id"] == again["id"]
    other = http.post("/v1/batches", json=body | {"completion_window": "2h"}, headers=ANN | key)
    assert (other.status_code, other.json["error"]["code"]) == (409, "idempotency_conflict")
    batch = http.post(f"/v1/batches/{first['id']}/cancel", headers=ANN).json
    assert batch["status"] == "cancelling"
    assert http.post(f"/v1/batches/{first['id']}/retry", headers=ANN).status_code == 409


def test_a_batch_has_the_model_that_its_lines_name(http: ReadingClient) -> None:
    other = json.dumps(LINE | {"custom_id": "b", "body": {"model": "other", "prompt": "x"}}).encode()
    for content, model in ((CONTENT, "echo"), (CONTENT + other, None)):
        body = {"input_file_id": upload(http, content).json["id"], "endpoint": "/v1/completions"}
        made = http.post("/v1/batches", json=body | {"completion_window": "1h"}, headers=ANN).json
        assert (made["model"], http.get(f"/v1/batches/{made['id']}", headers=ANN).json["model"]) == (model, model)


def test_a_page_of_batches_reads_no_more_than_it_shows(http: ReadingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"input_file_id": upload(http).json["id"], "endpoint": "/v1/completions", "completion_window": "1h"}
    ids = [http.post("/v1/batches", json=body, headers=ANN).json["id"] for _ in range(8)]
    read: list[str] = []
    get_many = BatchRecords.get_many

    def counting(self: BatchRecords, wanted: list[str]) -> Any:
        read.extend(wanted)
        return get_many(self, wanted)

    monkeypatch.setattr(BatchRecords, "get_many", counting)
    page = http.get("/v1/batches?limit=3", headers=ANN).json
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (ids[:4:-1], True)
    assert read == ids[:3:-1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "in_progress", "failed": 1}, "The batch is in_progress"),
        ({"status": "failed"}, "The batch is failed"),
        ({"status": "completed"}, "No line of the batch has failed."),
        ({"status": "expired", "failed": 1, "input_file_id": "file-away"}, "file 'file-away' is gone."),
    ],
)
def test_a_retry_that_is_refused_says_why(http: Any, fields: dict[str, Any], said: str) -> None:
    body = {"input_file_id": upload(http).json["id"], "endpoint": "/v1/completions", "completion_window": "1h"}
    batch_id = http.post("/v1/batches", json=body, headers=ANN).json["id"]
    http.store.client.hset(http.store.keys.batch(batch_id), mapping=fields)
    answer = http.post(f"/v1/batches/{batch_id}/retry", headers=ANN)
    assert answer.status_code == 409
    assert said in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/files//content", "/v1/batches//cancel", "/v1/jobs//cancel", "//v1/batches"])
def test_an_empty_id_is_not_found_and_never_a_redirect(http: ReadingClient, path: str) -> None:
    answer = http.post(path, headers=ANN)
    assert (answer.status_code, answer.json["error"]["type"]) == (404, "not_found")
