from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from promptq.contract.request import GenerateRequest, JobRequest


def fault(body: str) -> str:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate_json(body)
    return ".".join(str(part) for part in caught.value.errors()[0]["loc"])


def biases(count: int) -> str:
    return json.dumps({str(token): 1 for token in range(count)})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", ""),
        ('{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', ""),
        ('{"prompt": ""}', "prompt"),
        ('{"prompt": 3}', "prompt"),
        ('{"prompt": "a\\u0000b"}', "prompt"),
        ('{"prompt": "a", "max_tokens": -1}', "max_tokens"),
        ('{"prompt": "a", "max_tokens": "5"}', "max_tokens"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens"),
        ('{"prompt": "a", "temperature": NaN}', "temperature"),
        ('{"prompt": "a", "top_p": 0}', "top_p"),
        (f'{{"prompt": "a", "stop": {json.dumps(["."] * 17)}}}', "stop"),
        ('{"prompt": "a", "stop": [""]}', "stop.0"),
        ('{"prompt": "a", "min_p": 1.01}', "min_p"),
        ('{"prompt": "a", "min_p": -0.01}', "min_p"),
        ('{"prompt": "a", "presence_penalty": 2.1}', "presence_penalty"),
        ('{"prompt": "a", "frequency_penalty": -2.1}', "frequency_penalty"),
        ('{"prompt": "a", "repetition_penalty": 0}', "repetition_penalty"),
        ('{"prompt": "a", "repetition_penalty": 10.1}', "repetition_penalty"),
        ('{"prompt": "a", "repetition_penalty": "1.2"}', "repetition_penalty"),
        ('{"prompt": "a", "logit_bias": {"5": 100.5}}', "logit_bias.5"),
        ('{"prompt": "a", "logit_bias": {"5": null}}', "logit_bias.5"),
        ('{"prompt": "a", "logit_bias": {"-1": 1}}', "logit_bias.-1.[key]"),
        ('{"prompt": "a", "logit_bias": {"05": 1}}', "logit_bias.05.[key]"),
        ('{"prompt": "a", "logit_bias": [5]}', "logit_bias"),
        (f'{{"prompt": "a", "logit_bias": {biases(301)}}}', "logit_bias"),
        ('{"prompt": "a", "priority": "urgent"}', "priority"),
        ('{"prompt": "a", "colour": "red"}', "colour"),
        ('{"prompt": "a", "task": "summarise"}', "task"),
        ('{"prompt": "a", "task": "embed", "dimensions": 0}', "dimensions"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages.0.role"),
    ],
)
def test_a_wrong_field_is_named(body: str, field: str) -> None:
    assert fault(body) == field


def test_one_stop_string_needs_no_list() -> None:
    assert JobRequest.model_validate_json('{"prompt": "a", "stop": "."}').stop == ["."]


def test_the_bounds_themselves_are_allowed() -> None:
    body = f'{{"prompt": "a", "stop": {json.dumps(["."] * 16)}, "min_p": 1, "presence_penalty": -2, '
    body += f'"frequency_penalty": 2, "repetition_penalty": 10, "logit_bias": {biases(300)}}}'
    request = JobRequest.model_validate_json(body)
    assert GenerateRequest(**json.loads(json.dumps(request.kwargs()))).cache_key("m") == request.cache_key("m")


def test_the_order_of_a_bias_is_of_no_matter() -> None:
    one, other = ({"prompt": "a", "logit_bias": bias} for bias in ({"10": 1.0, "9": 2.0}, {"9": 2.0, "10": 1.0}))
    assert JobRequest(**one).fingerprint() == JobRequest(**other).fingerprint()


def test_kwargs_carry_only_what_differs_and_come_back_the_same() -> None:
    request = JobRequest(prompt="a", temperature=0.5, priority="high", cache=False)
    assert request.kwargs() == {"prompt": "a", "temperature": 0.5}
    assert GenerateRequest(**request.kwargs()).cache_key("m") == request.cache_key("m")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "b"}, {"max_tokens": 3}, {"seed": 1}, {"stop": ["x"]}, {"top_p": 0.5}, {"min_p": 0.1},
        {"presence_penalty": 0.5}, {"frequency_penalty": 0.5}, {"repetition_penalty": 1.1}, {"logit_bias": {"1": 2.0}},
    ],
)  # fmt: skip
def test_whatever_decides_the_text_is_in_the_cache_key(change: dict[str, object]) -> None:
    base = {"prompt": "a"}
    assert JobRequest(**base).cache_key("m") != JobRequest(**{**base, **change}).cache_key("m")
    assert JobRequest(**base).cache_key("m") != JobRequest(**base).cache_key("n")


def test_how_a_job_is_queued_is_not_in_the_cache_key() -> None:
    assert JobRequest(prompt="a").cache_key("m") == JobRequest(prompt="a", priority="low", ttl_seconds=3).cache_key("m")
    assert JobRequest(prompt="a").fingerprint() != JobRequest(prompt="a", priority="low").fingerprint()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x", "continue_final_message": True},
        {"messages": [{"role": "user", "content": "x"}], "continue_final_message": True},
        {"prompt": "x", "json_schema": {"enum": ["x" * 70_000]}},
        {"prompt": "x", "json_schema": True},
    ],
)
def test_a_turn_to_go_on_with_must_be_there_and_a_schema_is_a_small_object(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "messages: not with task embed"),
        ({"prompt": "a", "max_tokens": 5}, "max_tokens: not with task embed"),
        ({"prompt": "a", "stop": ["."]}, "stop: not with task embed"),
        ({"prompt": "a", "logprobs": True}, "logprobs: not with task embed"),
        ({"prompt": "a", "temperature": 1.0}, "temperature: not with task embed"),
        ({"prompt": "a", "json_schema": {}}, "json_schema: not with task embed"),
        ({"prompt": "a", "task": "generate", "dimensions": 5}, "dimensions: only with task embed"),
    ],
)
def test_an_embedding_takes_nothing_that_only_a_text_has(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        JobRequest.model_validate({"task": "embed"} | fields)


def test_an_embedding_is_another_request_than_a_text_which_stays_what_it_was() -> None:
    text, embedding = JobRequest(prompt="a"), JobRequest(prompt="a", task="embed", priority="low")
    assert "task" not in text.model_dump_json()
    assert embedding.kwargs() == {"prompt": "a", "task": "embed"}
    assert GenerateRequest(**embedding.kwargs()).cache_key("m") == embedding.cache_key("m") != text.cache_key("m")
    assert JobRequest(prompt="a", task="embed", dimensions=8).cache_key("m") != embedding.cache_key("m")
    assert embedding.is_deterministic
