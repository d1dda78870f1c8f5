"""Several models behind one API: which a request goes to, and what is told of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from promptq.contract.settings import ApiSettings
from promptq.queue import model_facts
from promptq.queue.observe import FleetRecord, Observer, PoolRecord
from tests.fakes import TimedStore, fake_redis
from tests.unit.api.conftest import SilentListener

MODELS = """
[[model]]
name = "org/a"
[[model]]
name = "b"
engine = "upstream"
base_url = "http://gpu/v1"
adapters = { sql = "sql" }
"""


@pytest.fixture
def store(tmp_path: Path) -> TimedStore:
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    return TimedStore(fake_redis(), ApiSettings(_env_file=None, models_file=str(file)))


@pytest.fixture
def http(store: TimedStore) -> FlaskClient:
    return create_app(store.settings, store, SilentListener).test_client()


def submit(http: FlaskClient, **fields: object) -> tuple[int, Any]:
    reply = http.post("/v1/jobs", json={"prompt": "x", **fields})
    return reply.status_code, reply.json


def test_a_job_waits_for_its_model(http: FlaskClient, store: TimedStore) -> None:
    models = [submit(http, model=name)[1]["model"] for name in ("b", "org/a", "b:sql")] + [submit(http)[1]["model"]]
    assert models == ["b", "org/a", "b", "org/a"]
    assert [store.client.llen(f"rq:queue:{name}") for name in ("default", "b:default")] == [1, 2]


def test_the_same_prompt_to_another_model_or_adapter_is_another_job(http: FlaskClient) -> None:
    asked = [("b", ""), ("b:sql", ""), ("b", "sql"), ("org/a", "")]
    caches = [submit(http, model=model, adapter=adapter)[1]["cache"] for model, adapter in asked]
    assert caches == ["miss", "miss", "join", "miss"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [({"model": "c"}, 404, "model"), ({"model": "org/a:sql"}, 404, "model"), ({"adapter": "sql"}, 422, "adapter"),
     ({"model": "b:sql", "adapter": "other"}, 422, "adapter"), ({"model": ["b"]}, 422, "model")],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_its_field(
    http: FlaskClient, fields: dict[str, object], status: int, param: str
) -> None:
    found, body = submit(http, **fields)
    assert (found, body["error"]["param"]) == (status, param)


def test_in_a_batch_each_job_has_its_own_model(http: FlaskClient) -> None:
    jobs = [{"prompt": "x", "model": name} for name in ("b", "c", "org/a")]
    items = http.post("/v1/jobs:batch", json={"jobs": jobs}).json["items"]
    assert [item["job"] and item["job"]["model"] for item in items] == ["b", None, "org/a"]
    assert items[1]["error"]["type"] == "model_not_found"


def test_each_model_is_bounded_for_itself(http: FlaskClient, store: TimedStore) -> None:
    small = TimedStore(store.client, store.settings.model_copy(update={"max_queue_jobs": 1}))
    http = create_app(small.settings, small, SilentListener).test_client()
    assert [submit(http, model=name, cache=False)[0] for name in ("b", "b", "org/a")] == [202, 429, 202]


def test_a_model_is_checked_against_what_its_own_engine_can_do(http: FlaskClient, store: TimedStore) -> None:
    for model, able in (("org/a", ["logprobs"]), ("b", [])):
        with store.client.pipeline() as pipe:
            model_facts.announce(pipe, store.keys.model(model), "i", able)
            pipe.execute()
    assert [submit(http, model=name, logprobs=True)[0] for name in ("org/a", "b")] == [202, 422]


def test_models_are_listed_with_their_state(http: FlaskClient, store: TimedStore) -> None:
    def states() -> dict[str, str]:
        return {model["id"]: model["state"] for model in http.get("/v1/models").json["data"]}

    assert states() == {"org/a": "unknown", "b": "unknown", "b:sql": "unknown"}
    pools = [PoolRecord("org/a", workers=1), PoolRecord("b", trouble="b-1 exited with code 4")]
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 2, 1, pools=pools))
    assert states() == {"org/a": "starting", "b": "trouble", "b:sql": "trouble"}
    store.client.sadd("rq:workers:default", "rq:worker:w1")
    store.client.hset("rq:worker:w1", mapping={"state": "idle", "model": "org/a", "metrics_url": "http://h:1"})
    assert states()["org/a"] == "ready"
    assert http.get("/v1/models/org/a").json["state"] == "ready"
    assert http.get("/v1/models/c").status_code == 404


def test_pools_are_told_with_what_they_wait_for(http: FlaskClient, store: TimedStore) -> None:
    pool = PoolRecord("b", 0, 1, 1, 0, "waits_for_room", "waits for a GPU that org/a holds", "", 2.5)
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 1, 1, pools=[pool]))
    (told,) = http.get("/v1/workers").json["scaler"]["pools"]
    assert (told["name"], told["waiting"], told["start_seconds"]) == ("b", "waits for a GPU that org/a holds", 2.5)
