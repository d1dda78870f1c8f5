"""Every row of the table in DESIGN.md, on fakeredis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import redis
from flask.testing import FlaskClient

from api.schemas import JobResource
from api.waiting.waiters import Waiters
from promptq.contract.job import Status
from promptq.queue.observe import FleetRecord, Observer, PoolRecord
from promptq.queue.store import Claim, Ending, NewJob
from tests.fakes import TimedStore, cancelled, failure, success

Finish = Callable[[Callable[[Claim], Ending]], Claim]
BODY = {"prompt": "one two"}


def test_submit_gives_202_the_job_and_where_to_find_it(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", json=BODY)
    job = answer.json
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    assert answer.headers["Location"] == job["urls"]["self"] == f"/v1/jobs/{job['id']}"
    assert job["urls"]["cancel"] == f"/v1/jobs/{job['id']}/cancel"
    assert (job["status"], job["model"], job["priority"], job["cache"]) == ("queued", "echo", "default", "miss")
    assert [job[name] for name in ("started_at", "finished_at", "output", "usage", "error")] == [None] * 5


def test_a_queued_job_says_why_it_waits(http: FlaskClient, store: TimedStore) -> None:
    url = http.post("/v1/jobs", json=BODY).headers["Location"]
    pool = PoolRecord(
        "echo", wanted=2, workers=2, service_seconds=4, slots=8, running=8, queued={"high": 3}, coming=[30.0], why="why"
    )
    Observer(store.client, store.settings).publish_fleet(FleetRecord(0, 2, 2, pools=[pool]))
    told = http.get(url).json["waiting"]
    assert told == {
        "jobs_ahead": 3, "workers": 1, "workers_coming": 1, "expected_seconds": 2.0, "reason": "why",
    }  # fmt: skip
    store.claim("w1", 1, time.time())
    assert http.get(url).json["waiting"] is None


def test_a_job_is_read_through_its_whole_life(http: FlaskClient, store: TimedStore) -> None:
    url = http.post("/v1/jobs", json=BODY | {"priority": "high"}).headers["Location"]
    waiting = http.get(url)
    assert (waiting.json["status"], waiting.json["queue_position"]) == ("queued", 0)
    assert waiting.json["waiting"] is None, "no scaler runs"
    (claim,) = store.claim("w1", 1, time.time())
    running = http.get(url)
    assert (running.json["status"], running.json["attempts"], running.headers["Retry-After"]) == ("running", 1, "1")
    assert running.json["timings"]["queue_seconds"] >= 0
    store.finish("w1", [success(claim, "the text")], time.time())
    ended = http.get(url)
    assert "Retry-After" not in ended.headers
    assert ended.json["output"] == {"text": "the text", "finish_reason": "stop"}
    assert ended.json["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cached_tokens": 0}
    assert (ended.json["timings"]["batch_size"], ended.json["model"]) == (3, "test-model")
    assert ended.json["finished_at"].endswith("Z")


def test_a_failed_job_says_why(http: FlaskClient, finish: Finish) -> None:
    url = http.post("/v1/jobs", json=BODY).headers["Location"]
    finish(failure)
    assert http.get(url).json["error"] == {"type": "engine_error", "message": "It broke."}


def test_a_cache_hit_is_200_and_has_no_timings_of_its_own(http: FlaskClient, finish: Finish) -> None:
    http.post("/v1/jobs", json=BODY)
    finish(success)
    hit = http.post("/v1/jobs", json=BODY)
    assert (hit.status_code, hit.json["status"], hit.json["cache"]) == (200, "succeeded", "hit")
    assert hit.json["output"]["text"] == "text"
    assert hit.json["timings"] == {
        "queue_seconds": 0.0,
        "time_to_first_token_seconds": None,
        "run_seconds": 0.0,
        "batch_size": None,
        "resumed_tokens": None,
        "moves": None,
    }
    assert "Retry-After" not in hit.headers
    assert http.get(hit.headers["Location"]).json["timings"] == hit.json["timings"]


@pytest.mark.parametrize("header", ["wait=0.01", "WAIT=0.01", 'respond-async, wait="0.01"; x=y'])
def test_prefer_wait_that_runs_out_gives_202(http: FlaskClient, header: str) -> None:
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": header})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0.01")


def test_other_preferences_are_not_ours(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": 'respond-async, return=minimal, =;,"'})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_prefer_wait_is_clamped_to_the_limit_and_says_so(http: FlaskClient, finish: Finish) -> None:
    http.post("/v1/jobs", json=BODY)
    finish(success)
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": "wait=" + "9" * 5000})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=60")


def test_prefer_wait_gives_the_finished_job_when_it_is_announced(
    http: FlaskClient, finish: Finish, waiters: Waiters
) -> None:
    def work() -> None:
        while not waiters._events:
            time.sleep(0.001)
        finish(success)

    thread = threading.Thread(target=work)
    thread.start()
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": "wait=30"})
    thread.join()
    assert (answer.status_code, answer.json["status"]) == (200, "succeeded")


@pytest.mark.parametrize("header", ["wait", "wait=", "wait=-1", "wait=soon", "wait=1e3", "wait=nan"])
def test_a_wait_that_is_no_number_names_the_header(http: FlaskClient, header: str) -> None:
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": header})
    assert (answer.status_code, answer.json["error"]["param"]) == (422, "Prefer")


def test_put_with_the_same_body_is_the_same_job_and_with_another_a_conflict(
    http: FlaskClient, store: TimedStore, finish: Finish
) -> None:
    first = http.put("/v1/jobs/my_own-id", json=BODY)
    again = http.put("/v1/jobs/my_own-id", json=BODY | {"max_tokens": 64})
    other = http.put("/v1/jobs/my_own-id", json={"prompt": "another"})
    assert (first.status_code, first.json["id"], again.status_code, again.json["id"]) == (202, "my_own-id") * 2
    assert (other.status_code, other.json["error"]["type"]) == (422, "idempotency_conflict")
    assert other.json["error"]["param"] == "id"
    finish(success)
    assert http.put("/v1/jobs/my_own-id", json=BODY).status_code == 200
    assert len(store.claim("w1", 10, time.time())) == 0


@pytest.mark.parametrize("job_id", ["a:b", "a b", "a.b", "x" * 65, "é", "%00"])
def test_put_refuses_ids_that_could_not_be_keys(http: FlaskClient, job_id: str) -> None:
    answer = http.put(f"/v1/jobs/{job_id}", json=BODY)
    assert (answer.status_code, answer.json["error"]["param"]) == (422, "id")


def test_an_idempotency_key_gives_the_same_job_and_is_kept_only_as_a_hash(http: FlaskClient, store: TimedStore) -> None:
    headers = {"Idempotency-Key": "order 17"}
    first, again = (http.post("/v1/jobs", json=BODY, headers=headers) for _ in range(2))
    other = http.post("/v1/jobs", json={"prompt": "another"}, headers=headers)
    assert first.json["id"] == again.json["id"]
    assert (other.status_code, other.json["error"]["type"]) == (422, "idempotency_conflict")
    assert other.json["error"]["param"] == "Idempotency-Key"
    (record,) = store.client.keys("*idempotency*")
    assert store.client.ttl(record) > 86_000
    assert store.client.keys("*order*") == []


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "tab\there"])
def test_an_idempotency_key_is_up_to_255_printable_characters(http: FlaskClient, key: str) -> None:
    answer = http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json["error"]["param"]) == (422, "Idempotency-Key")


def test_cancel_of_a_waiting_a_running_and_an_ended_job(http: FlaskClient, store: TimedStore) -> None:
    waiting, running = (http.post("/v1/jobs", json=BODY | {"cache": False}).json for _ in range(2))
    assert http.post(waiting["urls"]["cancel"]).json["status"] == "cancelled"
    (claim,) = store.claim("w1", 1, time.time())
    asked = http.post(running["urls"]["cancel"])
    assert (asked.status_code, asked.json["status"], asked.headers["Retry-After"]) == (202, "running", "1")
    store.finish("w1", [cancelled(claim)], time.time())
    assert http.get(running["urls"]["self"]).json["output"]["text"] == "par"
    for job in (waiting, running):
        late = http.post(job["urls"]["cancel"])
        assert (late.status_code, late.json["error"]["type"]) == (409, "job_already_terminal")


def test_cancel_of_a_waiting_job_is_200(http: FlaskClient) -> None:
    assert http.post(http.post("/v1/jobs", json=BODY).json["urls"]["cancel"]).status_code == 200


@pytest.mark.parametrize("job_id", ["nope", "a:b", "%00", "%ff", "x" * 3000, "..%2f..", "nope:dependents"])
def test_an_id_that_does_not_exist_is_404(http: FlaskClient, store: TimedStore, job_id: str) -> None:
    store.client.sadd("rq:job:nope:dependents", "x")
    answers = [http.get(f"/v1/jobs/{job_id}"), http.post(f"/v1/jobs/{job_id}/cancel")]
    expected = "job_not_found" if "%2f" not in job_id else "not_found"
    assert [(a.status_code, a.json["error"]["type"]) for a in answers] == [(404, expected)] * 2


def test_the_job_of_another_program_is_shown_without_its_result(http: FlaskClient, store: TimedStore) -> None:
    fields = {"status": "finished", "origin": "reports", "created_at": "2026-01-31T12:00:00.000000Z"}
    store.client.hset("rq:job:foreign", mapping=fields)
    store.client.xadd("rq:results:foreign", {"type": "1", "return_value": b"gASVAwAAAAAAAABLAi4="})
    answer = http.get("/v1/jobs/foreign")
    assert (answer.status_code, answer.json["status"], answer.json["output"]) == (200, "succeeded", None)
    assert http.put("/v1/jobs/foreign", json=BODY).status_code == 422


def test_reading_waits_no_longer_than_asked(http: FlaskClient) -> None:
    url = http.post("/v1/jobs", json=BODY).headers["Location"]
    assert http.get(url + "?wait=0.01").json["status"] == "queued"


@pytest.mark.parametrize("query", ["wait=-1", "wait=nan", "wait=1e999", "wait=", "wait=x", "wait=%00", "wiat=1"])
def test_a_query_that_is_wrong_is_refused(http: FlaskClient, query: str) -> None:
    answer = http.get(f"/v1/jobs/x?{query}")
    assert (answer.status_code, answer.json["error"]["param"]) == (422, query.split("=")[0])


def test_a_full_queue_is_429_with_a_time_to_come_back(http: FlaskClient, store: TimedStore) -> None:
    store.settings = store.settings.model_copy(update={"max_queue_jobs": 1})
    http.post("/v1/jobs", json=BODY)
    answer = http.post("/v1/jobs", json={"prompt": "another"})
    assert (answer.status_code, answer.json["error"]["type"]) == (429, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("call", ["/v1/queues", "/v1/workers", "/v1/jobs/x", "/v1/jobs/x?wait=5", "/readyz"])
def test_redis_away_is_503(http: FlaskClient, store: TimedStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    _take_away(store, monkeypatch)
    answer = http.get(call)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json["error"]["type"] in ("redis_unavailable", "not_ready")
    assert http.get("/livez").status_code == 200


def test_a_job_that_was_acknowledged_is_told_even_if_redis_goes_away(
    http: FlaskClient, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = store.submit_many

    def submit_and_lose(news: Sequence[NewJob]) -> object:
        done = submit(news)
        _take_away(store, monkeypatch)
        return done

    monkeypatch.setattr(store, "submit_many", submit_and_lose)
    answer = http.post("/v1/jobs", json=BODY, headers={"Prefer": "wait=5"})
    assert (answer.status_code, answer.json["status"]) == (202, "queued")


def test_a_traceparent_travels_with_the_job_unless_it_is_none(http: FlaskClient, store: TimedStore) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for header in (parent, "x" * 500):
        http.post("/v1/jobs", json=BODY | {"cache": False}, headers={"traceparent": header})
    assert [claim.context.traceparent for claim in store.claim("w1", 2, time.time())] == [parent, ""]


def test_the_request_id_travels_with_the_job(http: FlaskClient, store: TimedStore) -> None:
    answer = http.post("/v1/jobs", json=BODY | {"cache": False})
    http.post("/v1/jobs", json=BODY | {"cache": False}, headers={"X-Request-ID": "from-my-proxy"})
    ids = [claim.context.request_id for claim in store.claim("w1", 2, time.time())]
    assert ids == [answer.headers["X-Request-ID"], "from-my-proxy"]


def test_a_job_that_joined_shows_its_own_wait_and_not_the_leaders_run(http: FlaskClient, finish: Finish) -> None:
    urls = [http.post("/v1/jobs", json=BODY).headers["Location"] for _ in range(2)]

    def long_run(claim: Claim) -> Ending:
        result = success(claim).result
        assert result is not None
        return Ending(claim, Status.SUCCEEDED, replace(result, run_seconds=9.0))

    finish(long_run)
    leader, joined = (http.get(url).json for url in urls)
    assert (leader["timings"]["run_seconds"], joined["timings"]["run_seconds"]) == (9.0, 0.0)
    assert (joined["cache"], joined["output"]) == ("join", leader["output"])


def _take_away(store: TimedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(store.client, "execute_command", refuse)
    monkeypatch.setattr(redis.client.Pipeline, "execute", refuse)


def test_the_answer_is_what_the_schema_says(http: FlaskClient, finish: Finish) -> None:
    """It is written as it is, without the check that other answers get."""
    bodies = [http.post("/v1/jobs", json=BODY).data]
    for end in (success, failure, cancelled):
        url = http.post("/v1/jobs", json={"prompt": end.__name__}).headers["Location"]
        finish(end)
        bodies.append(http.get(url).data)
    for body in bodies:
        assert JobResource.model_validate_json(body).model_dump_json(by_alias=True).encode() == body


def test_urls_have_the_prefix_that_the_application_is_mounted_under(http: FlaskClient) -> None:
    answer = http.post("/v1/jobs", json=BODY, environ_overrides={"SCRIPT_NAME": "/a b/"})
    assert answer.json["urls"]["self"] == f"/a%20b/v1/jobs/{answer.json['id']}"
