"""What an engine cannot do is refused by the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_worker.engines.base import Capabilities
from promptq.contract.capabilities import NEEDS, check, needed
from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest

ASKED: dict[str, dict[str, Any]] = {
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": -0.5},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "logit_bias": {"logit_bias": {"5": 1.0}},
    "json_schema": {"json_schema": {"type": "object"}},
    "logprobs": {"logprobs": True},
    "prompt_token_ids": {"prompt": None, "prompt_token_ids": [5]},
    "adapter": {"adapter": "sql"},
    "task": {"task": "embed"},
    "tools": {
        "prompt": None,
        "messages": [{"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
}


def test_every_field_is_one_of_the_request_and_every_capability_one_of_the_engines() -> None:
    assert NEEDS.keys() == ASKED.keys() <= GenerateRequest.model_fields.keys()
    assert set(NEEDS.values()) <= set(Capabilities.__dataclass_fields__)


@pytest.mark.parametrize("field", NEEDS)
def test_what_is_asked_for_is_refused_where_the_engine_cannot(field: str) -> None:
    request = GenerateRequest.model_validate({"prompt": "a"} | ASKED[field])
    said = {"task": "embeddings"}.get(field, field)
    with pytest.raises(InvalidRequest, match=f"The engine of the model echo cannot do {said}.") as caught:
        check(request, {"streaming"}, "echo")
    assert caught.value.param == field
    check(request, {NEEDS[field]}, "m")


def test_a_request_that_asks_for_nothing_runs_anywhere() -> None:
    defaults = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "logit_bias": {}}
    for request in (GenerateRequest(prompt="a", min_p=0.5), GenerateRequest(prompt="a", **defaults)):
        assert needed(request) == {}
        check(request, (), "echo")


def test_an_engine_says_what_it_can_by_name() -> None:
    assert Capabilities(resume=True, logit_bias=True).names == ("text", "resume", "logit_bias")


def test_a_text_is_refused_by_what_embeds_alone_and_by_nothing_else() -> None:
    plain = GenerateRequest(prompt="a")
    check(plain, {"resume"}, "of an earlier version, which did not say that it generates")
    check(plain, {"text", "embeddings"}, "of both kinds")
    with pytest.raises(InvalidRequest, match="The model minilm makes embeddings, and generates no text") as caught:
        check(plain, {"embeddings"}, "minilm")
    assert caught.value.param == "model"
