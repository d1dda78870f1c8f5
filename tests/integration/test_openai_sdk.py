"""The unchanged openai SDK against a running service. `make test-extras` runs this file with older SDKs too."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.openai_clients import WORDS, api, fast, jobs, sdk, slow
from tests.processes import wait_until, worker

__all__ = ["api", "fast", "sdk", "slow"]
TALK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": WORDS}]


@pytest.mark.usefixtures("fast")
def test_a_chat(sdk: openai.OpenAI, store: TimedStore) -> None:
    answer = sdk.chat.completions.create(model="echo", messages=TALK, max_completion_tokens=5)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (" ".join(WORDS.split()[:5]), "length")
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (20, 5, 25)
    assert answer._request_id
    assert answer.id == f"chatcmpl-{jobs(store)[0]}", "the id leads to the job"


@pytest.mark.usefixtures("slow")
def test_a_chat_as_it_comes_with_its_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="echo", messages=TALK, stream=True, stream_options={"include_usage": True}
    )
    texts, times, last = [], [], None
    for chunk in stream:
        times.append(time.monotonic())
        texts += [choice.delta.content or "" for choice in chunk.choices]
        last = chunk
    assert "".join(texts) == WORDS
    assert sum(after - before > 0.03 for before, after in itertools.pairwise(times)) > 10, "not all at once"
    assert last
    assert last.usage
    assert last.usage.completion_tokens == 20


@pytest.mark.usefixtures("fast")
def test_a_completion_whole_and_as_it_comes(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="echo", prompt=WORDS, max_tokens=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" ".join(WORDS.split()[:3]), "length")
    stream = sdk.completions.create(model="echo", prompt=WORDS, max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["echo"]
    assert sdk.models.retrieve("echo").owned_by == "promptq"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("organisation/other")


@pytest.mark.usefixtures("fast")
def test_our_own_fields_come_by_extra_body_and_a_key_makes_one_job(sdk: openai.OpenAI, store: TimedStore) -> None:
    for _ in range(2):
        sdk.completions.create(
            model="echo", prompt="once", extra_body={"priority": "low", "top_k": 3},
            extra_headers={"Idempotency-Key": "mine"},
        )  # fmt: skip
    assert [store.get(job_id).priority for job_id in jobs(store)] == ["low"]


@pytest.mark.usefixtures("fast")
def test_the_async_client(api: Api) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any") as sdk:
            calls = [sdk.chat.completions.create(model="echo", messages=TALK) for _ in range(8)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [WORDS] * 8


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"n": 129}, openai.BadRequestError, "n"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "max_tokens"),
        ({"extra_body": {"unheard": 1}}, openai.BadRequestError, "unheard"),
    ],
)
def test_errors_are_the_sdks_own(
    sdk: openai.OpenAI, fields: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as caught:
        sdk.chat.completions.create(**({"model": "echo", "messages": TALK} | fields))
    assert caught.value.param == param
    assert param in str(caught.value), "a person sees the field too"


def test_a_wrong_key(server: EmbeddedServer, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ours {hashlib.sha256(b'secret').hexdigest()}\n")
    with running(server, tmp_path / "api", 1, api_keys_file=file) as api:
        url = f"http://127.0.0.1:{api.port}/v1"
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as sdk,
            pytest.raises(openai.AuthenticationError),
        ):
            sdk.models.list()
        with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as sdk:
            assert len(sdk.models.list().data) == 1


def test_a_full_queue_is_tried_again_by_the_sdk(server: EmbeddedServer, store: TimedStore, tmp_path: Path) -> None:
    with running(server, tmp_path, 1, max_queue_jobs=1) as api, worker(server, slots=1, echo_tokens_per_second=40):
        with openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk:
            fields: dict[str, Any] = {"model": "echo", "prompt": WORDS, "max_tokens": 20, "stream": True}
            with pytest.raises(openai.RateLimitError):
                _ = [sdk.completions.create(**fields) for _ in range(4)]
        with openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=5) as sdk:
            assert sdk.completions.create(model="echo", prompt=WORDS, max_tokens=20).choices[0].text == WORDS


def leave_stream(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="echo", messages=TALK, stream=True)
    next(iter(stream))
    next(iter(stream))
    stream.close()


def give_up(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        sdk.with_options(timeout=0.5).chat.completions.create(model="echo", messages=TALK)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("leave", [leave_stream, give_up])
def test_who_goes_away_takes_the_job_along(
    sdk: openai.OpenAI, store: TimedStore, leave: Callable[[openai.OpenAI], None]
) -> None:
    leave(sdk)
    left = time.monotonic()
    wait_until(lambda: [store.get(job_id).status for job_id in jobs(store)] == [Status.CANCELLED], 5)
    assert time.monotonic() - left < 1.5


def test_a_stream_whose_worker_is_killed_goes_on(sdk: openai.OpenAI, server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, "first", echo_tokens_per_second=8, lease_seconds=60) as process:
        came = iter(sdk.chat.completions.create(model="echo", messages=TALK, stream=True))
        texts = [next(came).choices[0].delta.content or "" for _ in range(5)]
        process.kill()
        process.wait(10)
    store.take_back("first", time.time())
    with worker(server, "second", echo_tokens_per_second=20):
        texts += [chunk.choices[0].delta.content or "" for chunk in came]
    assert "".join(texts) == WORDS


def test_a_job_that_fails_is_an_error_in_the_stream_too(sdk: openai.OpenAI, server: EmbeddedServer) -> None:
    with worker(server, echo_tokens_per_second=5):
        with pytest.raises(openai.InternalServerError) as caught:
            sdk.chat.completions.create(model="echo", messages=TALK, extra_body={"timeout_seconds": 0.5})
        assert caught.value.code == "timeout"
        stream = sdk.chat.completions.create(
            model="echo", messages=TALK, stream=True, extra_body={"timeout_seconds": 0.5}
        )
        with pytest.raises(openai.APIError) as caught_later:
            list(stream)
        assert "time limit" in str(caught_later.value)


@pytest.mark.usefixtures("slow")
def test_with_a_key_the_job_stays_for_whoever_asks_again(sdk: openai.OpenAI, store: TimedStore) -> None:
    fields: dict[str, Any] = {"model": "echo", "messages": TALK, "extra_headers": {"Idempotency-Key": "again"}}
    with pytest.raises(openai.APITimeoutError):
        sdk.with_options(timeout=0.5).chat.completions.create(**fields)
    answer = sdk.chat.completions.create(**fields)
    assert answer.choices[0].message.content == WORDS
    assert [store.get(job_id).status for job_id in jobs(store)] == [Status.SUCCEEDED]
