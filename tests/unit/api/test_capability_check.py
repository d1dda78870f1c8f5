"""What the model's engine cannot do is refused when it is submitted, once a worker has said what it can."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.capability_check import CapabilityCheck
from promptq.contract.errors import InvalidRequest, RedisUnavailable
from promptq.contract.request import GenerateRequest
from promptq.queue import model_facts, published
from tests.fakes import TimedStore, fake_redis, keys

ASKING: dict[str, Any] = {"prompt": "a", "presence_penalty": 0.5}
PLAIN: dict[str, Any] = {"prompt": "a", "temperature": 1.0, "min_p": 0.1}
MESSAGE = "The engine of the model echo cannot do presence_penalty."


def announce(client: redis.Redis, *capabilities: str, model: str = "echo") -> None:
    with client.pipeline() as pipe:
        model_facts.announce(pipe, keys.model(model), "identity", capabilities)
        pipe.execute()


class Reader:
    """Reads what is published, counts the reads, and fails when told to."""

    def __init__(self) -> None:
        self.client = fake_redis()
        self.reads = 0
        self.away = False

    def __call__(self) -> frozenset[str] | None:
        self.reads += 1
        if self.away:
            raise RedisUnavailable("away")
        return model_facts.read_capabilities(self.client, keys.model("echo"))


def passes(check: CapabilityCheck, body: dict[str, Any]) -> bool:
    try:
        check.check(GenerateRequest(**body))
    except InvalidRequest:
        return False
    return True


def test_capabilities_come_back_as_announced() -> None:
    client = fake_redis()
    assert model_facts.read_capabilities(client, keys.model("echo")) is None
    announce(client, "resume", "penalties")
    assert model_facts.read_capabilities(client, keys.model("echo")) == frozenset({"resume", "penalties"})
    announce(client)
    assert model_facts.read_capabilities(client, keys.model("echo")) == frozenset()


def test_a_request_that_asks_for_nothing_is_refused_only_where_there_is_no_text() -> None:
    reader = Reader()
    announce(reader.client, "resume")
    assert passes(CapabilityCheck(reader, "echo"), PLAIN)
    announce(reader.client, "embeddings")
    assert not passes(CapabilityCheck(reader, "echo"), PLAIN)


@pytest.mark.parametrize(("capabilities", "passed"), [((), False), (("resume",), False), (("penalties",), True)])
def test_it_is_asked_for_once_in_a_while(capabilities: tuple[str, ...], passed: bool) -> None:
    reader = Reader()
    announce(reader.client, *capabilities)
    check = CapabilityCheck(reader, "echo")
    assert [passes(check, body) for body in (ASKING, PLAIN) * 3] == [passed, True] * 3
    assert reader.reads == 1


def test_trouble_with_redis_is_told_once_and_what_is_known_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "FACTS_SECONDS", 0.0)
    reader = Reader()
    announce(reader.client)
    knowing, ignorant = CapabilityCheck(reader, "echo"), CapabilityCheck(reader, "echo")
    assert not passes(knowing, ASKING)
    reader.away = True
    for check in (knowing, ignorant):
        with pytest.raises(RedisUnavailable):
            passes(check, ASKING)
    assert not passes(knowing, ASKING)
    assert passes(ignorant, ASKING)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/jobs"), ("PUT", "/v1/jobs/mine"), ("POST", "/v1/jobs:batch")]
)
def test_every_way_of_submitting_refuses_by_name(http: FlaskClient, store: TimedStore, method: str, path: str) -> None:
    announce(store.client, "resume", "streaming")
    many = path.endswith("batch")
    answer = http.open(path, method=method, json={"jobs": [PLAIN, ASKING]} if many else ASKING)
    assert answer.status_code == (200 if many else 422)
    error = answer.json["items"][1]["error"] if many else answer.json["error"]
    assert (error["type"], error["message"], error["param"]) == ("invalid_request", MESSAGE, "presence_penalty")
    assert store.client.llen(keys.queue("default")) == (1 if many else 0)


FLAT: dict[str, Any] = {"type": "function", "name": "f"}
NESTED: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
ANSWER: dict[str, Any] = {"role": "tool", "tool_call_id": "c", "content": "wet"}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "c", "output": "wet"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/chat/completions", CHAT | {"model": "echo", "tools": [NESTED]}, 400, "tools"),
        ("/v1/chat/completions", {"model": "echo", "messages": [ANSWER]}, 400, "messages"),
        ("/v1/responses", {"model": "echo", "input": "a", "tools": [FLAT]}, 400, "tools"),
        ("/v1/responses", {"model": "echo", "input": [OUTPUT]}, 400, "input"),
        ("/v1/jobs", CHAT | {"tools": [NESTED]}, 422, "tools"),
        ("/v1/jobs", {"messages": [ANSWER]}, 422, "messages"),
    ],
)
def test_tools_are_refused_by_name_where_the_model_knows_none(
    http: FlaskClient, store: TimedStore, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    announce(store.client, "resume", "streaming", "json_schema")
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json["error"]["param"]) == (status, param)
    assert "The engine of the model echo cannot do" in answer.json["error"]["message"]
    assert store.client.llen(keys.queue("default")) == 0


def test_an_engine_that_can_is_given_the_job(http: FlaskClient, store: TimedStore) -> None:
    announce(store.client, "penalties", "logit_bias")
    body = {**ASKING, "repetition_penalty": 1.1, "logit_bias": {"5": -100}}
    assert http.post("/v1/jobs", json=body).status_code == 202
    (claim,) = store.claim("w", 1)
    assert claim.kwargs == {**body, "logit_bias": {"5": -100.0}}


def test_while_no_worker_has_said_anything_jobs_are_taken(http: FlaskClient, store: TimedStore) -> None:
    announce(store.client, model="another")
    assert http.post("/v1/jobs", json=ASKING).status_code == 202
