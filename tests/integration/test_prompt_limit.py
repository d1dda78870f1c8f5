"""Prompts around the context, on the default model: the API counts what the worker counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tokenizers import Tokenizer

from promptq.contract.settings import DEFAULT_MODEL
from promptq.queue import model_facts
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.prompt_limit import _count, _kept
from promptq.queue.store import connect
from tests.fakes import keys
from tests.integration.apis import Api, running
from tests.processes import wait_until, worker

CONTEXT = 2048
LEASE_SECONDS = 2
MIXED = "Zürich, 12 345 €;\n\n\tif x  >= 10:  # 東京 🏔️ \u0301 <|im_start|>system ".strip()


@pytest.fixture(scope="module")
def facts(
    server: EmbeddedServer, warm: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[redis.Redis]:
    """A client of a server that has the default model's facts from a live worker."""
    folder = tmp_path_factory.mktemp("worker")
    warm(folder)
    with connect(server.url) as client:
        client.flushall()  # a worker would run what earlier tests left in the queue, on the real model
    with (
        connect(server.url) as client,
        worker(server, "counter", engine="continuous", data_dir=folder, slots=4, lease_seconds=LEASE_SECONDS),
    ):
        wait_until(lambda: model_facts.read(client, keys.model(DEFAULT_MODEL)), 30, "the model's facts")
        yield client


@pytest.fixture(scope="module")
def api(facts: redis.Redis, server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), engine="continuous") as api:
        yield api


def tokenizer(client: redis.Redis) -> Tokenizer:
    found = model_facts.read(client, keys.model(DEFAULT_MODEL))
    assert found is not None
    return Tokenizer.from_str(found.tokenizer_json)


def ended(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.call("POST", "/v1/jobs", json={"max_tokens": 1, **body}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.call("POST", "/v1/jobs", json=body)
    assert answer.status_code == 422
    return answer.json()["error"]


def test_a_prompt_over_the_context_is_refused_and_the_longest_that_fits_succeeds(api: Api, facts: redis.Redis) -> None:
    counter = tokenizer(facts)
    words = CONTEXT - 1 - _count(counter, [MIXED], plain=True)
    longest = MIXED + " house" * words
    job = ended(api, prompt=longest)
    assert (job["status"], job["usage"]["prompt_tokens"], job["usage"]["completion_tokens"]) == (
        "succeeded", CONTEXT - 1, 1,
    )  # fmt: skip
    told = "The prompt has {} tokens; the context is 2,048, prompt and text together."
    assert error(api, prompt=longest + " house") == {
        "type": "invalid_request", "message": told.format("2,048"), "param": "prompt",
    }  # fmt: skip
    assert error(api, prompt=longest + " house" * 60)["message"] == told.format("2,107")


@pytest.mark.parametrize("prompt", [MIXED, "  \n" * 300 + "x", "1" * 700, "naïve " * 90, "<|endoftext|>" * 40])
def test_the_apis_count_is_the_workers(api: Api, facts: redis.Redis, prompt: str) -> None:
    assert ended(api, prompt=prompt)["usage"]["prompt_tokens"] == _count(tokenizer(facts), [prompt], plain=True)


def test_a_chats_contents_are_a_lower_bound(api: Api, facts: redis.Redis) -> None:
    contents = ["  \n Be short. \n ", MIXED, "\n<think>" + "hm " * 50 + "</think> I know.", "Well? " * 30]
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    least = _count(tokenizer(facts), [_kept(content) for content in contents], plain=False)
    assert 100 < least < ended(api, messages=messages)["usage"]["prompt_tokens"]
    seen = error(api, messages=[{"role": "user", "content": " house" * 2100}])
    assert seen["param"] == "messages"
    assert seen["message"].startswith("The messages have at least 2,100 tokens; the context is 2,048,")


def test_the_tokenizer_is_sent_once_and_again_when_redis_has_lost_it(facts: redis.Redis) -> None:
    def received() -> int:
        return int(facts.info("stats")["total_net_input_bytes"])

    before = received()
    facts.expire(keys.model(DEFAULT_MODEL), 60)
    wait_until(lambda: facts.ttl(keys.model(DEFAULT_MODEL)) > 60, 4 * LEASE_SECONDS, "a heartbeat")
    time.sleep(LEASE_SECONDS)
    assert received() - before < 100_000
    facts.delete(keys.model(DEFAULT_MODEL))
    wait_until(lambda: model_facts.read(facts, keys.model(DEFAULT_MODEL)), 4 * LEASE_SECONDS, "the facts")
    assert received() - before > 100_000


def test_a_restarted_worker_with_another_context_is_believed(
    facts: redis.Redis, server: EmbeddedServer, warm: Callable[[Path], None], tmp_path: Path
) -> None:
    warm(tmp_path)
    with worker(server, "small", engine="continuous", data_dir=tmp_path, slots=1, context_length=512):

        def context() -> int:
            found = model_facts.read(facts, keys.model(DEFAULT_MODEL))
            return found.context_length if found else 0

        wait_until(lambda: context() == 512, 30, "the smaller context")
