from __future__ import annotations

import pytest
from pydantic import ValidationError

from promptq.contract.request import GenerateRequest, JobRequest


def fault(body: str) -> str:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate_json(body)
    return ".".join(str(part) for part in caught.value.errors()[0]["loc"])


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
        ('{"prompt": "a", "stop": ["1", "2", "3", "4", "5"]}', "stop"),
        ('{"prompt": "a", "stop": [""]}', "stop.0"),
        ('{"prompt": "a", "priority": "urgent"}', "priority"),
        ('{"prompt": "a", "colour": "red"}', "colour"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages.0.role"),
    ],
)
def test_a_wrong_field_is_named(body: str, field: str) -> None:
    assert fault(body) == field


def test_one_stop_string_needs_no_list() -> None:
    assert JobRequest.model_validate_json('{"prompt": "a", "stop": "."}').stop == ["."]


def test_kwargs_carry_only_what_differs_and_come_back_the_same() -> None:
    request = JobRequest(prompt="a", temperature=0.5, priority="high", cache=False)
    assert request.kwargs() == {"prompt": "a", "temperature": 0.5}
    assert GenerateRequest(**request.kwargs()).cache_key("m") == request.cache_key("m")


@pytest.mark.parametrize("change", [{"prompt": "b"}, {"max_tokens": 3}, {"seed": 1}, {"stop": ["x"]}, {"top_p": 0.5}])
def test_whatever_decides_the_text_is_in_the_cache_key(change: dict[str, object]) -> None:
    base = {"prompt": "a"}
    assert JobRequest(**base).cache_key("m") != JobRequest(**{**base, **change}).cache_key("m")
    assert JobRequest(**base).cache_key("m") != JobRequest(**base).cache_key("n")


def test_how_a_job_is_queued_is_not_in_the_cache_key() -> None:
    assert JobRequest(prompt="a").cache_key("m") == JobRequest(prompt="a", priority="low", ttl_seconds=3).cache_key("m")
    assert JobRequest(prompt="a").fingerprint() != JobRequest(prompt="a", priority="low").fingerprint()
