"""Between the submit and its reply: what the client does not hear of must not be done twice."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from promptq.contract.errors import RedisUnavailable
from tests.fakes import TimedStore


@pytest.mark.parametrize("call", ["key", "id"])
def test_a_submit_whose_reply_was_lost_is_repeated_without_a_second_job(
    http: FlaskClient, store: TimedStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def send() -> tuple[int, Any]:
        if call == "key":
            answer = http.post("/v1/jobs", json={"prompt": "x"}, headers={"Idempotency-Key": "k"})
        else:
            answer = http.put("/v1/jobs/mine", json={"prompt": "x"})
        return answer.status_code, answer.json

    real = store.scripts.run

    def breaks_off(name: str, *arguments: object) -> None:
        real(name, *arguments)
        raise RedisUnavailable("the connection broke")

    monkeypatch.setattr(store.scripts, "run", breaks_off)
    assert send()[0] == 503
    monkeypatch.setattr(store.scripts, "run", real)
    (first, job), (second, again) = send(), send()
    assert (first, second, job["id"]) == (202, 202, again["id"])
    assert store.client.llen("rq:queue:default") == 1
