"""The status page and what it reads."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.api_keys import digest
from api.app import create_app
from promptq.contract.settings import ApiSettings
from promptq.queue.activity import recent
from tests.fakes import NOW, TimedStore, failure, submit, success
from tests.unit.api.test_api_access import KEYS, bearer


def end(store: TimedStore, now: float) -> None:
    [claim] = store.claim("w", 1, now)
    store.finish("w", [success(claim)], now)


def test_the_page_needs_nothing_from_elsewhere_and_its_policy_allows_nothing(http: FlaskClient) -> None:
    answer = http.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.findall(r"(?:src|href)=\"(?!/)", answer.text)
    assert not re.findall(r" (?:style|on\w+)=", answer.text), "the policy would block it"
    assert "innerHTML" not in answer.text


def test_the_policy_names_the_hash_of_what_is_sent(http: FlaskClient) -> None:
    answer = http.get("/")
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in answer.headers["Content-Security-Policy"]


def test_every_call_that_the_page_makes_exists(http: FlaskClient) -> None:
    text = http.get("/").text
    called = set(re.findall(r'"(/[\w/.]+)"', text))
    read = {"/v1/queues", "/v1/workers", "/v1/activity", "/v1/jobs", "/v1/batches", "/v1/webhook_endpoints"}
    assert called == {"/docs", "/metrics", *read}
    reads = called - {"/v1/jobs"}
    assert {path: http.get(path).status_code for path in reads} == dict.fromkeys(reads, 200)


def test_activity_has_totals_and_the_latest_jobs_first(http: FlaskClient) -> None:
    assert http.get("/v1/activity").json == {"totals": {}, "jobs": []}
    ids = [http.post("/v1/jobs", json={"prompt": f"p{n}"}).json["id"] for n in range(15)]
    activity = http.get("/v1/activity").json
    assert activity["totals"] == {"submitted": 15}
    assert [job["id"] for job in activity["jobs"]] == ids[:2:-1]


def test_recent_jobs_may_wait_run_join_or_have_ended(fake_store: TimedStore) -> None:
    store = fake_store
    done = submit(store, "a", NOW, cache=False).job.id
    end(store, NOW + 1)
    bad = submit(store, "b", NOW + 2, cache=False).job.id
    store.finish("w", [failure(claim) for claim in store.claim("w", 1, NOW + 3)], NOW + 4)
    gone = submit(store, "c", NOW + 5, cache=False).job.id
    store.cancel(gone, NOW + 6)
    runs = submit(store, "d", NOW + 7, priority="high").job.id
    store.claim("w", 1, NOW + 8)
    joins = submit(store, "d", NOW + 9).job.id
    waits = submit(store, "e", NOW + 10, priority="low").job.id
    assert recent(store, 9) == [waits, joins, runs, gone, bad, done]
    assert recent(store, 2) == [waits, joins]


def test_jobs_that_are_kept_long_do_not_hide_the_latest(fake_store: TimedStore) -> None:
    for number in range(5):
        submit(fake_store, f"kept{number}", NOW + number, job_id=f"kept{number}", keep=86_400, cache=False)
        end(fake_store, NOW + number)
    new = submit(fake_store, "new", NOW + 9, cache=False).job.id
    end(fake_store, NOW + 10)
    assert recent(fake_store, 2) == [new, "kept4"]


class TestWithKeys:
    @pytest.fixture
    def http(self, tmp_path: Path, store: TimedStore) -> FlaskClient:
        file = tmp_path / "keys"
        file.write_text("".join(f"{name} {digest(key)}\n" for name, key in KEYS.items()))
        settings = ApiSettings(_env_file=None, engine="echo", api_keys_file=str(file))
        return create_app(settings, store).test_client()

    def test_the_page_is_for_everyone_and_the_jobs_for_their_owner(self, http: FlaskClient) -> None:
        job = http.post("/v1/jobs", json={"prompt": "x"}, headers=bearer("ann")).json["id"]
        assert http.get("/").status_code == 200
        assert http.get("/v1/activity").status_code == 401
        assert [seen["id"] for seen in http.get("/v1/activity", headers=bearer("ann")).json["jobs"]] == [job]
        assert http.get("/v1/activity", headers=bearer("bob")).json["jobs"] == []
