"""The facts of a model, and the refusal of prompts that are over its context."""

from __future__ import annotations

import os
import zlib
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from promptq.contract.errors import InvalidRequest, RedisUnavailable
from promptq.contract.request import GenerateRequest, Message
from promptq.queue import model_facts, prompt_limit, published
from promptq.queue.model_facts import ModelFacts
from promptq.queue.prompt_limit import PromptLimit
from tests.fakes import TimedStore, fake_redis, keys

CONTEXT = 300
FITTING = "word " * (CONTEXT - 2)
"""With the token that begins each prompt it leaves room for one."""


def word_tokenizer() -> Tokenizer:
    """A word is a token, one more begins each prompt, and its file asks for a cut and for padding."""
    tokenizer = Tokenizer(tokenizer_models.WordLevel({"<begin>": 0, "<?>": 1}, unk_token="<?>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("<begin> $A", special_tokens=[("<begin>", 0)])
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=5000)
    return tokenizer


FACTS = ModelFacts.of(CONTEXT, word_tokenizer().to_str())


class Facts:
    """Reads what is published, counts the reads, and fails when told to."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.reads = 0
        self.away = False

    def __call__(self, known: ModelFacts | None) -> ModelFacts | None:
        self.reads += 1
        if self.away:
            raise RedisUnavailable("away")
        return model_facts.read(self.client, keys.model("m"), known)


@pytest.fixture
def client() -> redis.Redis:
    return fake_redis()


@pytest.fixture
def facts(client: redis.Redis) -> Facts:
    model_facts.publish(client, keys.model("m"), FACTS)
    return Facts(client)


@pytest.fixture
def limit(facts: Facts) -> PromptLimit:
    return PromptLimit(facts)


def refusal(limit: PromptLimit, prompt: str | None = None, *contents: str) -> tuple[str, str | None] | None:
    messages = [Message(role="user", content=content) for content in contents] or None
    try:
        limit.check(GenerateRequest(prompt=prompt, messages=messages))
    except InvalidRequest as error:
        return error.message, error.param
    return None


def test_the_facts_come_back_as_published_and_live_a_day(client: redis.Redis) -> None:
    assert model_facts.read(client, keys.model("m")) is None
    model_facts.publish(client, keys.model("m"), FACTS)
    assert model_facts.read(client, keys.model("m")) == FACTS
    assert 86_000 < client.ttl(keys.model("m")) <= 86_400
    assert model_facts.read(client, keys.model("another")) is None


def test_a_heartbeat_renews_the_facts_and_says_whose_tokenizer_is_there(client: redis.Redis) -> None:
    def beat(facts: ModelFacts) -> bytes | None:
        with client.pipeline() as pipe:
            model_facts.renew(pipe, keys.model("m"), facts)
            return pipe.execute()[-1]

    assert beat(FACTS) is None
    assert model_facts.read(client, keys.model("m")) is None  # no tokenizer yet
    model_facts.publish(client, keys.model("m"), FACTS)
    client.expire(keys.model("m"), 5)
    assert beat(ModelFacts.of(512, FACTS.tokenizer_json)) == FACTS.sha256.encode()
    assert model_facts.read(client, keys.model("m")) == ModelFacts.of(512, FACTS.tokenizer_json)
    assert client.ttl(keys.model("m")) > 5


def test_a_known_tokenizer_is_not_fetched_again(client: redis.Redis) -> None:
    model_facts.publish(client, keys.model("m"), FACTS)
    known = model_facts.read(client, keys.model("m"))
    client.hset(keys.model("m"), mapping={"tokenizer": b"never read", "context_length": 9})
    assert model_facts.read(client, keys.model("m"), known) == ModelFacts.of(9, FACTS.tokenizer_json)
    model_facts.publish(client, keys.model("m"), ModelFacts.of(9, "other"))
    assert model_facts.read(client, keys.model("m"), known) == ModelFacts.of(9, "other")


def test_what_has_few_bytes_reads_and_counts_nothing(limit: PromptLimit, facts: Facts) -> None:
    assert refusal(limit, "a " * 127) is None
    assert refusal(limit, None, *["a"] * 200) is None
    assert facts.reads == 0


def test_fewer_bytes_than_the_context_are_not_counted(
    limit: PromptLimit, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_limit, "_parse", pytest.fail)
    assert refusal(limit, "a" * (CONTEXT - 1)) is None
    assert facts.reads == 1


def test_a_prompt_is_counted_whole_and_refused_where_no_token_has_room(limit: PromptLimit) -> None:
    assert refusal(limit, FITTING) is None
    expected = "The prompt has 300 tokens; the context is 300, prompt and text together."
    assert refusal(limit, FITTING + "word") == (expected, "prompt")
    assert refusal(limit, "é " * 2310)[0].startswith("The prompt has 2,311 tokens; ")


def test_an_embedding_needs_no_room_behind_its_prompt(limit: PromptLimit) -> None:
    def embed(**prompt: Any) -> None:
        limit.check(GenerateRequest(task="embed", **prompt))

    embed(prompt=FITTING + "word")
    embed(prompt_token_ids=[1] * CONTEXT)
    for prompt in ({"prompt": FITTING + "word word"}, {"prompt_token_ids": [1] * (CONTEXT + 1)}):
        with pytest.raises(InvalidRequest, match=r"^The prompt has 301 tokens; the context is 300\.$"):
            embed(**prompt)


def test_of_a_chat_only_what_every_template_keeps_is_counted(limit: PromptLimit) -> None:
    half = "word " * (CONTEXT // 2)
    expected = "The messages have at least 300 tokens; the context is 300, prompt and text together."
    assert refusal(limit, None, half, half) == (expected, "messages")
    assert refusal(limit, None, half, half.removesuffix("word ") + " \n" * 900) is None
    assert refusal(limit, None, half, f"<think>{half * 9}</think>{half[5:]}") is None


def test_facts_are_read_once_in_a_while(limit: PromptLimit, facts: Facts) -> None:
    for _ in range(5):
        refusal(limit, FITTING)
    assert facts.reads == 1


def test_new_facts_are_seen_when_the_old_are_stale(
    limit: PromptLimit, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FACTS_SECONDS", 0.0)
    assert refusal(limit, FITTING + "word")
    model_facts.publish(facts.client, keys.model("m"), ModelFacts.of(CONTEXT + 1, FACTS.tokenizer_json))
    assert refusal(limit, FITTING + "word") is None
    assert facts.reads == 2


def test_unknown_facts_let_everything_through(client: redis.Redis) -> None:
    facts = Facts(client)
    limit = PromptLimit(facts)
    assert [refusal(limit, FITTING * 9), refusal(limit, FITTING * 9)] == [None, None]
    assert facts.reads == 1


def test_trouble_with_redis_is_told_once_and_what_is_known_stays_so(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FACTS_SECONDS", 0.0)
    knowing, ignorant = PromptLimit(facts), PromptLimit(facts)
    assert refusal(knowing, FITTING + "word")
    facts.away = True
    for limit in (knowing, ignorant):
        with pytest.raises(RedisUnavailable):
            refusal(limit, FITTING + "word")
    assert refusal(knowing, FITTING + "word")
    assert refusal(ignorant, FITTING + "word") is None


@pytest.mark.parametrize(
    "packed", [b"no zlib", zlib.compress(b"\xff"), zlib.compress(b"{}"), zlib.compress(os.urandom(99))[:-9]]
)
def test_a_tokenizer_that_cannot_be_read_lets_everything_through(
    limit: PromptLimit, facts: Facts, packed: bytes
) -> None:
    facts.client.hset(keys.model("m"), "tokenizer", packed)
    assert refusal(limit, FITTING * 9) is None


def test_what_unpacks_to_too_much_is_not_taken(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_facts, "MAX_TOKENIZER_BYTES", len(FACTS.tokenizer_json) - 1)
    assert model_facts.read(facts.client, keys.model("m")).tokenizer_json == ""


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [("POST", "/v1/jobs", "prompt"), ("PUT", "/v1/jobs/mine", "prompt"), ("POST", "/generate", "prompt"),
     ("POST", "/v1/jobs", "messages"), ("POST", "/v1/jobs:batch", "prompt")],
)  # fmt: skip
def test_every_way_of_submitting_refuses_with_the_numbers(
    http: FlaskClient, store: TimedStore, method: str, path: str, field: str
) -> None:
    model_facts.publish(store.client, keys.model("echo"), FACTS)
    text = "w " * 400
    body = {"prompt": text} if field == "prompt" else {"messages": [{"role": "user", "content": text}]}
    many = path.endswith("batch")
    answer = http.open(path, method=method, json={"jobs": [{"prompt": "fits"}, body]} if many else body)
    assert answer.status_code == (200 if many else 422)
    error = answer.json["items"][1]["error"] if many else answer.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request", field)
    assert ("401" if field == "prompt" else "400") in error["message"]
    assert "300" in error["message"]
    assert store.client.llen(keys.queue("default")) == (1 if many else 0)


def test_another_models_facts_do_not_count(http: FlaskClient, store: TimedStore) -> None:
    model_facts.publish(store.client, keys.model("another"), FACTS)
    assert http.post("/v1/jobs", json={"prompt": "w " * 400}).status_code == 202
