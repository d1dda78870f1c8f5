"""Keys, limits, ownership, and what a web page may not do."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.api_keys import ApiKey, digest, read_keys
from api.app import create_app
from promptq.contract.errors import SettingsError
from promptq.contract.settings import ApiSettings
from tests.fakes import TimedStore, failure, fake_redis, success
from tests.unit.api.conftest import ReadingClient, SilentListener

KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}
Make = Callable[..., ReadingClient]


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("# who may call\n" + "".join(f"{name} {digest(key)}\n" for name, key in KEYS.items()))
    return file


@pytest.fixture
def make(keyfile: Path) -> Make:
    def make(**fields: object) -> ReadingClient:
        settings = ApiSettings(_env_file=None, engine="echo", api_keys_file=str(keyfile), **fields)
        store = TimedStore(fake_redis(), settings)
        client: Any = create_app(settings, store, SilentListener).test_client()
        client.store = store
        return client

    return make


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


class TestKeys:
    @pytest.mark.parametrize(
        "header", [{}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic key-of-ann"}, {"Authorization": "x"}]
    )
    @pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("GET", "/v1/queues"), ("POST", "/generate")])
    def test_without_a_known_key_nothing_is_done(self, make: Make, header: dict, method: str, path: str) -> None:
        answer = make().open(path, method=method, json={"prompt": "x"}, headers=header)
        assert (answer.status_code, answer.json["error"]["type"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_with_a_key_it_works(self, make: Make) -> None:
        assert make().post("/v1/jobs", json={"prompt": "x"}, headers=bearer("ann")).status_code == 202

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"])
    def test_probes_metrics_and_the_reference_need_none(self, make: Make, path: str) -> None:
        assert make().get(path).status_code in (200, 503)

    def test_no_key_and_no_prompt_in_the_log_or_the_metrics(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        http = make()
        http.post("/v1/jobs", json={"prompt": "a secret prompt"}, headers=bearer("ann"))
        http.post("/v1/jobs", json={"prompt": "a secret prompt"}, headers={"Authorization": "Bearer wrong-secret"})
        for shown in (caplog.text, http.get("/metrics").text):
            assert "secret" not in shown
            assert KEYS["ann"] not in shown

    @pytest.mark.parametrize(
        ("text", "says"),
        [("ann plain-key\n", "line 1 of"), ("# none\n", "holds no key"), (None, "cannot read")],
        ids=["plain", "empty", "missing"],
    )
    def test_a_bad_file_is_one_line_without_what_it_holds(self, tmp_path: Path, text: str | None, says: str) -> None:
        file = tmp_path / "keys"
        if text is not None:
            file.write_text(text)
        with pytest.raises(SettingsError, match=says) as caught:
            read_keys(str(file))
        assert "plain-key" not in caught.value.message

    def test_a_made_key_is_admitted_by_its_line(self, tmp_path: Path) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "api.api_keys", "carl"], check=True, capture_output=True, text=True
        )
        key, line = (text.split(":", 1)[1].strip() for text in made.stdout.splitlines())
        (tmp_path / "keys").write_text(line)
        assert read_keys(str(tmp_path / "keys")) == {digest(key): ApiKey("carl")}


class TestShares:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            (" weight=0", "a weight is between 0.01 and 100"), (" weight=101", "a weight is between"),
            (" weight=-1", "is not `name"), (" 2", "is not `name"), (" weight=nan", "is not `name"),
        ],
    )  # fmt: skip
    def test_a_weight_that_is_none_is_refused(self, tmp_path: Path, line: str, says: str) -> None:
        (tmp_path / "keys").write_text(f"ann {digest('a')}{line}\n")
        with pytest.raises(SettingsError, match=f"line 1 of .*{says}"):
            read_keys(str(tmp_path / "keys"))

    def test_a_name_has_one_weight_over_all_its_keys(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text(f"ann {digest('old')} weight=2.5 # until May\nann {digest('new')} weight=2.5\n")
        assert set(read_keys(str(file)).values()) == {ApiKey("ann", 2.5)}
        file.write_text(f"ann {digest('old')} weight=2.5\nann {digest('new')}\n")
        with pytest.raises(SettingsError, match=r"line 2 of .* gives a name a second weight"):
            read_keys(str(file))

    def test_keys_take_turns_by_their_weights(self, make: Make, keyfile: Path) -> None:
        keyfile.write_text(keyfile.read_text().rstrip() + " weight=2\n")
        http = make()
        for name, jobs in (("ann", 6), ("bob", 4)):
            prompts = [{"prompt": f"{name} {n}"} for n in range(jobs)]
            assert http.post("/v1/jobs:batch", json={"jobs": prompts}, headers=bearer(name)).status_code == 200
        claims = http.store.claim("w", 10)
        assert [claim.kwargs["prompt"][:3] for claim in claims[1:7]].count("bob") == 4
        http.store.finish("w", [failure(claim) for claim in claims if claim.kwargs["prompt"].startswith("ann")])
        http.post("/v1/jobs:batch", json={"jobs": [{"prompt": f"more {n}"} for n in range(3)]}, headers=bearer("bob"))
        dead = next(claim.id for claim in claims if claim.kwargs["prompt"].startswith("ann"))
        assert http.post(f"/v1/jobs/{dead}/retry", headers=bearer("ann")).status_code == 202
        assert dead in [claim.id for claim in http.store.claim("w", 2)]

    def test_one_key_shares_with_nobody(self, make: Make, keyfile: Path) -> None:
        keyfile.write_text(f"ann {digest(KEYS['ann'])} weight=3\nann {digest('another of hers')} weight=3\n")
        http = make()
        assert http.post("/v1/jobs", json={"prompt": "x"}, headers=bearer("ann")).status_code == 202
        keys = http.store.keys
        assert http.store.client.exists(keys.start_tags("default"), keys.finish_tags("default")) == 0


class TestOwnership:
    def test_each_key_sees_its_own_usage_only(self, make: Make) -> None:
        http = make()
        for prompt in ("x", "y"):
            http.post("/v1/jobs", json={"prompt": prompt}, headers=bearer("ann"))
        http.store.finish("w", [success(claim) for claim in http.store.claim("w", 2)])
        today = datetime.fromtimestamp(http.store.now(), UTC).date().isoformat()
        ann, bob = (http.get("/v1/usage", headers=bearer(name)).json for name in ("ann", "bob"))
        assert (bob["days"], bob["total"]["jobs"]) == ([], 0)
        (row,) = ann["days"]
        assert (row["day"], row["model"], row["jobs"], row["succeeded"]) == (today, "echo", 2, 2)
        assert [ann["total"][name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")] == [2, 4, 0]
        assert http.get("/v1/usage").status_code == 401

    def test_another_keys_job_is_not_found(self, make: Make) -> None:
        http = make()
        url = http.post("/v1/jobs", json={"prompt": "x"}, headers=bearer("ann")).json["urls"]["self"]
        for method, path in (
            ("GET", url),
            ("GET", f"{url}?wait=5"),
            ("POST", url + "/cancel"),
            ("POST", url + "/retry"),
        ):
            answer = http.open(path, method=method, headers=bearer("bob"))
            assert (answer.status_code, answer.json["error"]["type"]) == (404, "job_not_found")
        assert http.get(url, headers=bearer("ann")).json["status"] == "queued"

    def test_keys_have_idempotency_keys_of_their_own_and_share_no_cache(self, make: Make) -> None:
        http = make()
        ids = {
            http.post("/v1/jobs", json={"prompt": "x"}, headers=bearer(name) | {"Idempotency-Key": "k"}).json["id"]
            for name in ("ann", "bob", "ann")
        }
        assert len(ids) == 2
        claims = http.store.claim("w", 5, time.time())
        assert len(claims) == 2
        http.store.finish("w", [success(claims[0])], time.time())
        again = [http.post("/v1/jobs", json={"prompt": "x"}, headers=bearer(name)) for name in KEYS]
        assert [answer.json["cache"] for answer in again] == ["hit", "join"]

    def test_the_dead_letters_of_others_are_not_listed(self, make: Make) -> None:
        http = make()
        for name in ("ann", "bob", "ann"):
            http.post("/v1/jobs", json={"prompt": "x", "cache": False}, headers=bearer(name))
        http.store.finish("w", [failure(claim) for claim in http.store.claim("w", 5, time.time())], time.time())
        assert [len(http.get("/v1/jobs", headers=bearer(name)).json["jobs"]) for name in KEYS] == [2, 1]


class TestLimits:
    def test_more_than_the_rate_is_429_for_that_key_alone(self, make: Make) -> None:
        http = make(key_requests_per_second=5)
        answers = [http.get("/v1/queues", headers=bearer("ann")) for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert refused[0].json["error"]["type"] == "rate_limited"
        assert refused[0].headers["Retry-After"] in ("1", "2")
        assert http.get("/v1/queues", headers=bearer("bob")).status_code == 200

    def test_the_window_leaves_nothing_behind(self, make: Make) -> None:
        http = make()
        http.get("/v1/queues", headers=bearer("ann"))
        names = list(http.store.client.scan_iter("promptq:rate:*"))
        assert names
        assert all(0 < http.store.client.pttl(name) <= 3000 for name in names)

    def test_open_requests_are_bounded_and_given_back(self, make: Make) -> None:
        http = make(key_open_requests=1)
        open_requests = http.application.extensions["promptq"].open_requests
        open_requests.enter("ann")
        refused = http.get("/v1/queues", headers=bearer("ann"))
        assert (refused.status_code, refused.json["error"]["type"]) == (429, "too_many_open_requests")
        open_requests.leave("ann")
        assert [http.get("/v1/queues", headers=bearer("ann")).status_code for _ in range(3)] == [200] * 3


class TestWebPages:
    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000"])
    def test_another_sites_page_is_refused(self, http: ReadingClient, origin: str) -> None:
        answer = http.post("/v1/jobs", data='{"prompt": "x"}', headers={"Origin": origin, "Content-Type": "text/plain"})
        assert (answer.status_code, answer.json["error"]["param"]) == (403, "Origin")

    def test_our_own_page_and_programs_are_not(self, http: ReadingClient) -> None:
        for headers in ({}, {"Origin": "http://localhost"}):
            assert http.post("/v1/jobs", json={"prompt": "x"}, headers=headers).status_code == 202

    def test_a_name_that_was_pointed_at_us_is_refused(self, http: ReadingClient) -> None:
        for host in ("rebound.example:8000", "[::1", "[localhost]", ""):
            answer = http.get("/v1/jobs", headers={"Host": host})
            assert (answer.status_code, answer.json["error"]["param"]) == (403, "Host"), host
        for host in ("127.0.0.1:8000", "[::1]:8000", "localhost"):
            assert http.get("/v1/jobs", headers={"Host": host}).status_code == 200

    def test_every_answer_is_hardened(self, http: ReadingClient) -> None:
        for path in ("/livez", "/nope", "/v1/queues", "/docs"):
            headers = http.get(path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
        assert http.get("/v1/queues").headers["Cache-Control"] == "no-store"


class TestBinding:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
    def test_beyond_loopback_only_with_keys_or_leave(self, host: str) -> None:
        with pytest.raises(ValueError, match="opens the API to others"):
            ApiSettings(_env_file=None, api_host=host)
        assert ApiSettings(_env_file=None, api_host=host, allow_open_bind=True)
        assert ApiSettings(_env_file=None, api_host=host, api_keys_file="keys")

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_loopback_needs_neither(self, host: str) -> None:
        assert ApiSettings(_env_file=None, api_host=host)


class TestDeadLetters:
    def test_a_failed_job_is_listed_and_retried(self, http: ReadingClient, finish: Callable) -> None:
        job = http.post("/v1/jobs", json={"prompt": "x"}).json
        finish(failure)
        (dead,) = http.get("/v1/jobs?status=failed").json["jobs"]
        assert (dead["id"], dead["error"]["type"]) == (job["id"], "engine_error")
        answer = http.post(f"/v1/jobs/{job['id']}/retry")
        assert (answer.status_code, answer.json["status"], answer.json["error"]) == (202, "queued", None)
        assert http.get("/v1/jobs").json["jobs"] == []
        finish(success)
        refused = http.post(f"/v1/jobs/{job['id']}/retry")
        assert (refused.status_code, refused.json["error"]["type"]) == (409, "job_not_failed")

    def test_the_latest_come_first_and_no_more_than_asked(self, http: ReadingClient, store: TimedStore) -> None:
        ids = [http.post("/v1/jobs", json={"prompt": "x", "cache": False}).json["id"] for _ in range(4)]
        for i, claim in enumerate(store.claim("w", 4, time.time())):
            store.finish("w", [failure(claim)], time.time() + i)
        assert [job["id"] for job in http.get("/v1/jobs?limit=3").json["jobs"]] == ids[:0:-1]
        assert http.get("/v1/jobs?status=expired").json["jobs"] == []

    @pytest.mark.parametrize("query", ["status=queued", "limit=0", "limit=101", "colour=red"])
    def test_a_wrong_query_is_422(self, http: ReadingClient, query: str) -> None:
        assert http.get(f"/v1/jobs?{query}").status_code == 422
