"""A line whose prompt is too long for its model: what is written about it is what the API answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.app import create_app
from dispatcher.batches.lines import Entry, Line, prepare
from dispatcher.batches.models import Models
from promptq.contract.batches import BatchRecord
from promptq.contract.settings import ApiSettings, DispatcherSettings
from promptq.queue import model_facts
from tests.fakes import TimedStore, fake_redis
from tests.unit.api.conftest import SilentListener
from tests.unit.api.test_prompt_limit import FACTS

LONG, SHORT = "word " * 400, "word"


def body_of(url: str, text: str) -> dict[str, Any]:
    own: dict[str, Any] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
        "/v1/completions": {"prompt": text},
        "/v1/responses": {"input": text},
    }
    return {"model": "echo"} | own[url]


def prepared(store: TimedStore, url: str, text: str) -> Line | Entry:
    settings = DispatcherSettings(_env_file=None, engine="echo")
    batch = BatchRecord("batch_1", "", url, "file-in", "24h", "in_progress", 0.0)
    line = {"custom_id": "a", "method": "POST", "url": url, "body": body_of(url, text)}
    return prepare(batch, 1, json.dumps(line).encode(), settings, Models(store))


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_it_is_refused_as_the_call_itself_would_be(url: str) -> None:
    settings = ApiSettings(_env_file=None, engine="echo")
    store = TimedStore(fake_redis(), settings)
    assert isinstance(prepared(store, url, LONG), Line), "no worker has told how long the context is"
    model_facts.publish(store.client, store.keys.model("echo"), FACTS)
    assert isinstance(prepared(store, url, SHORT), Line)
    entry = prepared(store, url, LONG)
    assert isinstance(entry, Entry)
    response = json.loads(entry.text)["response"]
    answer: Any = create_app(settings, store, SilentListener).test_client().post(url, json=body_of(url, LONG))
    assert (entry.kind, response["status_code"], response["body"]) == ("error", 400, answer.json)
    assert answer.status_code == 400
