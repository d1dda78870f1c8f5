"""/generate, the fleet, health, metrics, the schema, and what surrounds every request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from api.openai.schemas import OpenAIError
from api.schemas import AnyError, ErrorResponse
from api.waiting.waiters import Waiters
from promptq.contract.job import JobError, Status
from promptq.queue.observe import FleetRecord, Observer
from promptq.queue.store import Claim, Ending
from tests.fakes import TimedStore, failure, success

Finish = Callable[[Callable[[Claim], Ending]], Claim]
Metric = Callable[[str], float]


@pytest.fixture
def worker(finish: Finish, waiters: Waiters, app: object) -> Callable[[Callable[[Claim], Ending]], threading.Thread]:
    """A worker that ends the next job that somebody waits for."""

    def start(how: Callable[[Claim], Ending]) -> threading.Thread:
        def work() -> None:
            while not waiters._events:
                time.sleep(0.0005)
            finish(how)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    return start


@pytest.fixture
def patient(settings: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.__dict__, "generate_timeout_seconds", 30)


@pytest.mark.usefixtures("patient")
def test_generate_gives_the_text_and_then_the_cached_text(http: FlaskClient, worker: Callable) -> None:
    thread = worker(success)
    first = http.post("/generate", json={"prompt": "x", "max_new_tokens": 5})
    thread.join()
    again = http.post("/generate", json={"prompt": "x", "max_new_tokens": 5})
    assert (first.json["output"], first.json["cache_hit"]) == ("text", False)
    assert (again.json["output"], again.json["cache_hit"]) == ("text", True)
    assert set(first.json) == {"output", "cache_hit", "job_id"}


def test_generate_that_takes_too_long_is_504_and_the_job_lives_on(http: FlaskClient) -> None:
    answer = http.post("/generate", json={"prompt": "x"})
    error = answer.json["error"]
    assert (answer.status_code, error["type"]) == (504, "generate_timeout")
    assert http.get(f"/v1/jobs/{error['job_id']}").json["status"] == "queued"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("how", "status", "kind", "param"),
    [
        (failure, 502, "job_failed", None),
        (lambda claim: Ending(claim, Status.CANCELLED), 502, "job_failed", None),
        (
            lambda claim: Ending(claim, Status.FAILED, error=JobError("prompt_too_long", "Too long.")),
            422, "invalid_request", "prompt",
        ),
    ],
)  # fmt: skip
def test_generate_of_a_job_that_ends_badly(
    http: FlaskClient, worker: Callable, how: Callable, status: int, kind: str, param: str | None
) -> None:
    thread = worker(how)
    answer = http.post("/generate", json={"prompt": "x"})
    thread.join()
    assert (answer.status_code, answer.json["error"]["type"], answer.json["error"]["param"]) == (status, kind, param)


def test_queues_are_shown_per_priority(http: FlaskClient, store: TimedStore) -> None:
    http.post("/v1/jobs", json={"prompt": "x", "priority": "high"})
    http.post("/v1/jobs", json={"prompt": "y"})
    store.claim("w1", 1, time.time())
    queues = {queue["name"]: queue for queue in http.get("/v1/queues").json["queues"]}
    assert list(queues) == ["high", "default", "low"]
    assert (queues["high"]["queued"], queues["high"]["running"], queues["default"]["queued"]) == (0, 1, 1)
    assert queues["default"]["oldest_age_seconds"] >= 0


def test_workers_are_those_registered_those_starting_and_why_not(http: FlaskClient, store: TimedStore) -> None:
    assert http.get("/v1/workers").json == {"workers": [], "scaler": None}
    store.client.sadd("rq:workers:default", "rq:worker:w1")
    fields = {"phase": "busy", "slots": 16, "device": "cpu", "model": "echo", "metrics_url": "x",
              "birth": "2026-01-31T12:00:00.000000Z"}  # fmt: skip
    store.client.hset("rq:worker:w1", mapping=fields)
    Observer(store.client, store.settings).publish_fleet(
        FleetRecord(1, 4, 2, ("w1", "w2"), "no such model", 1_800_000_000.0)
    )
    body = http.get("/v1/workers").json
    assert [(w["name"], w["state"], w["slots"]) for w in body["workers"]] == [("w1", "busy", 16), ("w2", "starting", 0)]
    assert body["workers"][0]["started_at"] == "2026-01-31T12:00:00.000000Z"
    assert (body["scaler"]["trouble"], body["scaler"]["retry_at"]) == ("no such model", "2027-01-15T08:00:00.000000Z")


def test_a_registered_worker_can_be_asked_to_drain(http: FlaskClient, store: TimedStore) -> None:
    store.client.hset("rq:worker:w1", mapping={"phase": "idle", "metrics_url": "x"})
    answer = http.post("/v1/workers/w1/drain")
    assert (answer.status_code, answer.json) == (202, {"name": "w1", "state": "draining"})
    assert store.client.hget("rq:worker:w1", "drain") == b"1"
    unknown = http.post("/v1/workers/w2/drain")
    assert (unknown.status_code, unknown.json["error"]["type"]) == (404, "worker_not_found")


def test_a_worker_that_waits_for_a_node_says_so(http: FlaskClient, store: TimedStore) -> None:
    fleet = FleetRecord(0, 1, 1, ("w1",), leader="host-1", waits={"w1": "waits for Ray"})
    Observer(store.client, store.settings).publish_fleet(fleet)
    body = http.get("/v1/workers").json
    assert (body["workers"][0]["trouble"], body["scaler"]["leader"]) == ("waits for Ray", "host-1")


def test_ready_means_that_a_worker_lives_or_may_be_started(http: FlaskClient, store: TimedStore) -> None:
    unready = http.get("/readyz")
    assert (unready.status_code, unready.json["error"]["type"]) == (503, "not_ready")
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 0, 0))
    assert http.get("/readyz").status_code == 503
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 1, 0))
    assert http.get("/readyz").status_code == 200


def test_trouble_makes_unready_where_no_worker_is_left_and_is_a_warning_beside_others(
    http: FlaskClient, store: TimedStore
) -> None:
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 1, 1, (), "w1 exited with code 5"))
    unready = http.get("/readyz")
    assert (unready.status_code, "code 5" in unready.json["error"]["message"]) == (503, True)
    store.client.sadd("rq:workers:default", "rq:worker:w2")
    store.client.hset("rq:worker:w2", mapping={"phase": "idle", "metrics_url": "x"})
    ready = http.get("/readyz")
    assert (ready.status_code, "code 5" in " ".join(ready.json["warnings"])) == (200, True)


def test_the_metrics_count_what_happened(http: FlaskClient, finish: Finish, metric: Metric) -> None:
    for body in ({"prompt": "a"}, {"prompt": "a"}, {"prompt": "b", "cache": False}, {"prompt": ""}):
        http.post("/v1/jobs", json=body)
    http.post("/v1/jobs", data=b"{")
    http.get("/v1/jobs/one")
    http.get("/v1/jobs/two")
    http.get("/random/1")
    http.open("/random/2", method="BREW")
    requests = "promptq_http_requests_total"
    assert metric(f'{requests}{{method="POST",route="/v1/jobs",status="202"}}') == 3
    assert metric(f'{requests}{{method="POST",route="/v1/jobs",status="422"}}') == 1
    assert metric(f'{requests}{{method="GET",route="/v1/jobs/<id>",status="404"}}') == 2
    assert metric(f'{requests}{{method="GET",route="unknown",status="404"}}') == 1
    assert metric(f'{requests}{{method="OTHER",route="unknown",status="404"}}') == 1
    assert metric('promptq_http_request_duration_seconds_count{method="POST",route="/v1/jobs"}') == 5
    assert metric('promptq_jobs_submitted_total{model="echo",queue="default"}') == 3
    assert [metric(f'promptq_cache_requests_total{{result="{r}"}}') for r in ("miss", "join", "bypass")] == [1, 1, 1]
    assert metric('promptq_jobs_rejected_total{reason="invalid_request"}') == 1
    assert metric('promptq_jobs_rejected_total{reason="invalid_json"}') == 1
    assert metric("promptq_http_requests_in_progress") == 1


def test_a_repeat_is_not_counted_twice_and_a_504_not_as_refused(http: FlaskClient, metric: Metric) -> None:
    http.put("/v1/jobs/a", json={"prompt": "x"})
    http.put("/v1/jobs/a", json={"prompt": "x"})
    http.post("/generate", json={"prompt": "y"})
    assert metric('promptq_jobs_submitted_total{model="echo",queue="default"}') == 2
    assert metric('promptq_jobs_rejected_total{reason="generate_timeout"}') == 0


def test_a_request_id_is_taken_over_or_made(http: FlaskClient) -> None:
    assert http.get("/livez", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    for given in ("", "two words", "x" * 129):
        made = http.get("/nope", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert made != given
        assert len(made) == 32


def test_a_bug_is_a_500_without_a_traceback_but_with_one_in_the_log(
    http: FlaskClient, store: TimedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "get", lambda _id: 1 / 0)
    answer = http.get("/v1/jobs/x")
    assert (answer.status_code, answer.json["error"]["type"]) == (500, "internal_error")
    assert "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert answer.headers["X-Request-ID"] in caplog.text


def test_the_schema_describes_every_call_with_examples(http: FlaskClient) -> None:
    schema = http.get("/openapi.json").json
    calls = {(method, path) for path, item in schema["paths"].items() for method in item}
    assert calls == {
        ("post", "/v1/jobs"), ("put", "/v1/jobs/{id}"), ("get", "/v1/jobs/{id}"), ("post", "/v1/jobs/{id}/cancel"),
        ("get", "/v1/jobs/{id}/events"), ("post", "/v1/chat/completions"), ("post", "/v1/completions"),
        ("post", "/v1/responses"), ("get", "/v1/responses/{id}"), ("delete", "/v1/responses/{id}"),
        ("post", "/v1/responses/{id}/cancel"), ("get", "/v1/models"), ("get", "/v1/models/{model}"),
        ("post", "/v1/jobs/{id}/retry"), ("get", "/v1/jobs"), ("post", "/v1/jobs:batch"),
        ("post", "/generate"), ("get", "/v1/queues"), ("get", "/v1/workers"), ("get", "/v1/activity"),
        ("post", "/v1/workers/{name}/drain"),
        ("get", "/v1/usage"), ("post", "/v1/embeddings"), ("post", "/v1/files"), ("get", "/v1/files"),
        ("get", "/v1/files/{id}"), ("delete", "/v1/files/{id}"), ("get", "/v1/files/{id}/content"),
        ("post", "/v1/batches"), ("get", "/v1/batches"), ("get", "/v1/batches/{id}"),
        ("post", "/v1/batches/{id}/cancel"), ("post", "/v1/batches/{id}/retry"),
        ("post", "/v1/webhook_endpoints"), ("get", "/v1/webhook_endpoints"), ("get", "/v1/webhook_endpoints/{id}"),
        ("delete", "/v1/webhook_endpoints/{id}"), ("post", "/v1/webhook_endpoints/{id}/rotate"),
        ("post", "/v1/webhook_endpoints/{id}/test"), ("get", "/v1/webhook_endpoints/{id}/deliveries"),
        ("post", "/v1/webhook_endpoints/{id}/deliveries/{delivery}/redeliver"), ("get", "/v1/webhook_secret"),
        ("post", "/v1/webhook_secret/rotate"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }  # fmt: skip
    components = schema["components"]["schemas"]
    assert all("example" in components[name] for name in ("SubmitJob", "Generate", "Generated", "Job", "ErrorResponse"))
    submit = schema["paths"]["/v1/jobs"]["post"]
    assert {parameter["name"] for parameter in submit["parameters"]} == {"Prefer", "Idempotency-Key"}
    error = {"$ref": "#/components/schemas/ErrorResponse"}
    assert submit["responses"]["429"]["content"]["application/json"]["schema"] == error
    assert http.get("/livez").json == components["Alive"].get("example", {"status": "ok"})


@pytest.mark.parametrize("error", [ErrorResponse, OpenAIError])
def test_the_schema_of_an_error_is_made_once_for_all_responses(error: type[AnyError]) -> None:
    """Hundreds of responses refer to it; to make it for each took a good part of a process's start."""
    assert error.model_json_schema() is error.model_json_schema()
    assert error.model_json_schema()["title"] == error.__name__


def test_the_docs_page_finds_its_files(http: FlaskClient) -> None:
    page = http.get("/docs")
    assert "swagger/js/swagger-ui-bundle.js" in page.text
    assert "openapi.json" in page.text
    with http.get("/swagger/js/swagger-ui-bundle.js") as script:
        assert script.status_code == 200
