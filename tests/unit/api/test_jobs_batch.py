"""Many prompts in one request, and many jobs in one answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.api_keys import digest
from api.app import create_app
from api.parameters import MAX_IDS
from promptq.contract.errors import RedisUnavailable
from promptq.contract.settings import ApiSettings
from promptq.queue.store import Claim, Ending
from tests.fakes import TimedStore, fake_redis, keys, success
from tests.unit.api.conftest import SilentListener

Finish = Callable[[Callable[[Claim], Ending]], Claim]


def batch(http: FlaskClient, *jobs: object, **headers: str) -> tuple[list[dict], dict]:
    """The items of the answer, and its other parts."""
    answer = http.post("/v1/jobs:batch", json={"jobs": jobs}, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.get_json()
    return told.pop("items"), {**told, "headers": answer.headers}


def test_each_prompt_has_its_job_at_its_place(http: FlaskClient, store: TimedStore) -> None:
    items, rest = batch(http, *({"prompt": f"p{i}", "max_tokens": 1 + i % 7, "priority": "low"} for i in range(250)))
    assert (rest["accepted"], rest["refused"]) == (250, 0)
    assert [item["error"] for item in items] == [None] * 250
    assert [item["job"]["queue_position"] for item in items] == list(range(250))
    claims = store.claim("w", 250, time.time())
    assert [claim.id for claim in claims] == [item["job"]["id"] for item in items]
    assert claims[2].kwargs["max_tokens"] == 3


def test_what_is_wrong_with_one_prompt_is_said_in_its_place_and_harms_no_other(http: FlaskClient) -> None:
    wrong = [
        (7, "body"), (None, "body"), ({}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": 7}, "prompt"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"), ({"prompt": "x", "max_tokens": 101}, "max_tokens"),
        ({"prompt": "x", "max_token": 1}, "max_token"), ({"prompt": "y" * 1001}, "prompt"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"prompt": "x", "idempotency_key": ""}, "idempotency_key"), ({"prompt": "x", "stop": [""]}, "stop.0"),
    ]  # fmt: skip
    items, rest = batch(http, {"prompt": "first"}, *(item for item, _ in wrong), {"prompt": "last"})
    assert (rest["accepted"], rest["refused"]) == (2, len(wrong))
    assert items[0]["job"]["queue_position"] == 0
    assert items[-1]["job"]["queue_position"] == 1
    assert [item["job"] for item in items[1:-1]] == [None] * len(wrong)
    assert [item["error"]["param"] for item in items[1:-1]] == [param for _, param in wrong]
    assert {item["error"]["type"] for item in items[1:-1]} == {"invalid_request"}
    assert {item["error"]["retry_after_seconds"] for item in items[1:-1]} == {None}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "jobs"), ({"jobs": []}, "jobs"), ({"jobs": {}}, "jobs"), ([], "body"), ({"jobs": [{}], "x": 1}, "x"),
        ({"jobs": [{"prompt": "x"}] * 1001}, "jobs"),
    ],
)  # fmt: skip
def test_a_batch_that_is_none_is_refused_whole(http: FlaskClient, store: TimedStore, body: object, param: str) -> None:
    answer = http.post("/v1/jobs:batch", json=body)
    assert (answer.status_code, answer.json["error"]["param"]) == (422, param)
    assert store.client.dbsize() == 0


def test_twins_join_and_known_texts_are_hits(http: FlaskClient, finish: Finish) -> None:
    http.post("/v1/jobs", json={"prompt": "known"})
    finish(success)
    items, _ = batch(http, {"prompt": "new"}, {"prompt": "known"}, {"prompt": "new"}, {"prompt": "new", "cache": False})
    assert [item["job"]["cache"] for item in items] == ["miss", "hit", "join", "bypass"]
    assert items[1]["job"]["output"]["text"] == "text"


def test_what_does_not_fit_is_refused_by_itself_with_its_turn(settings: ApiSettings) -> None:
    store = TimedStore(fake_redis(), settings.model_copy(update={"max_queue_jobs": 3}))
    http = create_app(store.settings, store, SilentListener).test_client()
    store.client.set(keys.drain_rate(settings.default_model), "0.5")
    items, rest = batch(http, *({"prompt": f"p{i}"} for i in range(6)))
    assert (rest["accepted"], rest["refused"]) == (3, 3)
    assert [bool(item["job"]) for item in items] == [True] * 3 + [False] * 3
    assert {item["error"]["type"] for item in items[3:]} == {"queue_full"}
    assert [item["error"]["retry_after_seconds"] for item in items[3:]] == [2, 4, 6]
    assert rest["headers"]["Retry-After"] == "6"
    assert store.client.llen("rq:queue:default") == 3


def test_a_batch_sent_twice_under_one_key_makes_its_jobs_once(http: FlaskClient, store: TimedStore) -> None:
    jobs = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "idempotency_key": "own"}]
    first, again = (batch(http, *jobs, **{"Idempotency-Key": "k"})[0] for _ in range(2))
    assert [item["job"]["id"] for item in first] == [item["job"]["id"] for item in again]
    assert store.client.llen("rq:queue:default") == 3
    alone = http.post("/v1/jobs", json={"prompt": "c"}, headers={"Idempotency-Key": "own"})
    assert alone.json["id"] == first[2]["job"]["id"]
    other, _ = batch(http, {"prompt": "a"}, {"prompt": "x", "idempotency_key": "own"})
    assert (other[1]["error"]["type"], other[1]["error"]["param"]) == ("idempotency_conflict", "idempotency_key")
    assert other[0]["job"]["id"] != first[0]["job"]["id"]


def test_redis_going_away_in_the_middle_loses_no_acknowledgement(
    http: FlaskClient, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = store.submit_many, []

    def breaks_off(news: object) -> object:
        calls.append(news)
        if len(calls) == 3:
            raise RedisUnavailable("gone")
        return real(news)

    monkeypatch.setattr(store, "submit_many", breaks_off)
    items, rest = batch(http, *({"prompt": f"p{i}"} for i in range(450)))
    assert (rest["accepted"], rest["refused"], len(calls)) == (200, 250, 3)
    assert {item["error"]["type"] for item in items[200:]} == {"redis_unavailable"}
    assert {item["error"]["retry_after_seconds"] for item in items[200:]} == {1}
    assert store.client.llen("rq:queue:default") == 200
    calls[:] = [None, None]
    answer = http.post("/v1/jobs:batch", json={"jobs": [{"prompt": "x"}]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_a_batch_is_counted_job_by_job(http: FlaskClient, metric: Callable[[str], float]) -> None:
    batch(http, {"prompt": "a"}, {"prompt": "a"}, {"prompt": "b", "priority": "high"}, {})
    assert metric('promptq_jobs_submitted_total{model="echo",queue="default"}') == 2
    assert metric('promptq_jobs_submitted_total{model="echo",queue="high"}') == 1
    assert metric('promptq_cache_requests_total{result="join"}') == 1
    assert metric('promptq_jobs_rejected_total{reason="invalid_request"}') == 1


def test_many_jobs_are_read_in_the_order_asked_for(http: FlaskClient, finish: Finish) -> None:
    ids = [http.post("/v1/jobs", json={"prompt": f"p{i}", "cache": False}).json["id"] for i in range(1)]
    finish(success)
    ids += [http.post("/v1/jobs", json={"prompt": f"p{i}", "cache": False}).json["id"] for i in range(2)]
    answer = http.get(f"/v1/jobs?ids={ids[2]},nope,{ids[0]},a:b,{ids[2]},{ids[1]}").json
    assert [job["id"] for job in answer["jobs"]] == [ids[2], ids[0], ids[1]]
    assert [job["status"] for job in answer["jobs"]] == ["queued", "succeeded", "queued"]
    assert [job["queue_position"] for job in answer["jobs"]] == [1, None, 0]
    assert answer["jobs"][1] == http.get(f"/v1/jobs/{ids[0]}").json
    assert answer["not_found"] == ["nope", "a:b"]


@pytest.mark.parametrize("query", ["ids=", "ids=a,", "ids=a,,b", "ids=a&limit=5", "ids=a&status=failed"])
def test_ids_that_are_none_name_the_parameter(http: FlaskClient, query: str) -> None:
    answer = http.get(f"/v1/jobs?{query}")
    assert (answer.status_code, answer.json["error"]["param"]) == (422, "ids")


def test_so_many_ids_and_no_more(http: FlaskClient) -> None:
    assert len(http.get("/v1/jobs?ids=" + ",".join(map(str, range(MAX_IDS)))).json["not_found"]) == MAX_IDS
    assert http.get("/v1/jobs?ids=" + ",".join(map(str, range(MAX_IDS + 1)))).status_code == 422


def test_each_key_submits_and_sees_its_own(store: TimedStore, tmp_path: Path) -> None:
    names = {"alice": "key-a", "bob": "key-b"}
    file = tmp_path / "keys"
    file.write_text("\n".join(f"{name} {digest(key)}" for name, key in names.items()))
    settings = store.settings.model_copy(update={"api_keys_file": str(file)})
    http = create_app(settings, store, SilentListener).test_client()
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in names.values())
    assert http.post("/v1/jobs:batch", json={"jobs": [{"prompt": "x"}]}).status_code == 401
    mine, _ = batch(http, {"prompt": "a", "idempotency_key": "k"}, **alice)
    theirs, _ = batch(http, {"prompt": "b", "idempotency_key": "k"}, **bob)
    ids = [mine[0]["job"]["id"], theirs[0]["job"]["id"]]
    answer = http.get(f"/v1/jobs?ids={','.join(ids)}", headers=alice).json
    assert [job["id"] for job in answer["jobs"]] == [ids[0]]
    assert answer["not_found"] == [ids[1]]


def test_the_schema_knows_both(http: FlaskClient) -> None:
    document = http.get("/openapi.json").json
    post = document["paths"]["/v1/jobs:batch"]["post"]
    assert post["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/BatchAnswer")
    assert document["components"]["schemas"]["Batch"]["properties"]["jobs"]["maxItems"] == 1000
    assert "ids" in [parameter["name"] for parameter in document["paths"]["/v1/jobs"]["get"]["parameters"]]
