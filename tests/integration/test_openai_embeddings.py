"""`/v1/embeddings`: the real openai SDK, a real worker and a tiny random BERT."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModel

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import SETTINGS, TimedStore
from tests.integration.apis import Api, running
from tests.integration.openai_clients import jobs
from tests.integration.tiny_encoders import PLACES, save, word_pieces
from tests.processes import wait_until, worker

NEAR = 1e-5
SIZE = 32
INPUTS = ["the river was near", "a far town", "wind at night and at day on the road to the sea", "it"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1, engine="continuous", model=folder) as api:
        yield api


@pytest.fixture
def sdk(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def embedder(server: EmbeddedServer, folder: Path) -> Iterator[None]:
    with worker(server, engine="continuous", model=folder, device="cpu", worker_threads=1, lease_seconds=1):
        yield


@pytest.fixture
def model(folder: Path) -> str:
    return str(folder)


@pytest.fixture
def served(embedder: None, store: TimedStore, model: str) -> None:
    """The worker has said what it can and how it counts, which an emptied Redis has forgotten."""
    wait_until(lambda: store.client.hget(store.keys.model(model), "tokenizer"))


def tokens(text: str) -> list[int]:
    return word_pieces()(text, truncation=False)["input_ids"]


@torch.no_grad()
def reference(folder: Path, text: str) -> Any:
    """The mean of a row's hidden states, made 1 long, of the row alone."""
    states = AutoModel.from_pretrained(folder)(torch.tensor([tokens(text)])).last_hidden_state[0]
    return pytest.approx(torch.nn.functional.normalize(states.mean(0), dim=0).tolist(), abs=NEAR)


@pytest.mark.usefixtures("embedder")
def test_each_input_has_its_embedding_in_order(sdk: openai.OpenAI, store: TimedStore, folder: Path, model: str) -> None:
    answer = sdk.embeddings.create(model=model, input=INPUTS, user="somebody")
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    assert [one.embedding for one in answer.data] == [reference(folder, text) for text in INPUTS]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(len(tokens(text)) for text in INPUTS)
    assert answer.model == model
    assert len(jobs(store)) == 4


@pytest.mark.usefixtures("embedder", "store")
def test_both_formats_are_the_same_numbers(sdk: openai.OpenAI, api: Api, model: str) -> None:
    asked = {"model": model, "input": "the river", "encoding_format": "float"}
    (numbers,) = sdk.embeddings.create(**asked).data
    (decoded,) = sdk.embeddings.create(model=model, input="the river", dimensions=SIZE).data
    assert numbers.embedding == decoded.embedding
    raw = api.call("POST", "/v1/embeddings", json=asked | {"encoding_format": "base64"}).json()
    assert list(struct.unpack(f"<{SIZE}f", base64.b64decode(raw["data"][0]["embedding"]))) == numbers.embedding
    plain = api.call("POST", "/v1/embeddings", json={"model": model, "input": ["the river"]}).json()
    assert plain == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": numbers.embedding}],
        "model": model,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


@pytest.mark.usefixtures("embedder", "store")
def test_token_ids_are_an_input_too(sdk: openai.OpenAI, model: str) -> None:
    written = sdk.embeddings.create(model=model, input=INPUTS[:2])
    numbered = sdk.embeddings.create(model=model, input=[tokens(text) for text in INPUTS[:2]])
    assert [one.embedding for one in numbered.data] == [pytest.approx(one.embedding, abs=NEAR) for one in written.data]
    (alone,) = sdk.embeddings.create(model=model, input=tokens(INPUTS[0])).data
    assert alone.embedding == pytest.approx(written.data[0].embedding, abs=NEAR)


@pytest.mark.usefixtures("embedder", "store")
def test_the_async_client_reads_many_at_once(api: Api, folder: Path, model: str) -> None:
    async def ask() -> list[list[float]]:
        url = f"http://127.0.0.1:{api.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as sdk:
            answers = await asyncio.gather(*(sdk.embeddings.create(model=model, input=text) for text in INPUTS))
        return [answer.data[0].embedding for answer in answers]

    assert asyncio.run(ask()) == [reference(folder, text) for text in INPUTS]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"input": "a " * PLACES}, "input", f"has {PLACES + 2} tokens"),
        ({"input": ["fine", "a " * 2 * PLACES]}, "input", f"has {2 * PLACES + 2} tokens"),
        ({"input": [3] * 65}, "input", "has 65 tokens"),
        ({"input": [10_000]}, None, "the model has no token 10000"),
        ({"input": "fine", "dimensions": 16}, None, "dimensions: the model's embeddings have 32"),
        ({"input": ""}, "input.0", "at least 1 character"),
        ({"input": []}, "input", "at least 1 item"),
        ({"input": ["fine", "nul\0"]}, "input.1", "NUL"),
        ({"input": ["a"] * 2049}, "input", "at most 2048 items"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "extra_body": {"input_type": "query"}}, "input_type", "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_a_400_that_says_so(
    sdk: openai.OpenAI, store: TimedStore, model: str, asked: dict[str, Any], param: str | None, said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        sdk.embeddings.create(model=model, **asked)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in jobs(store)))


@pytest.mark.usefixtures("served")
def test_a_model_that_embeds_generates_no_text(sdk: openai.OpenAI, model: str) -> None:
    talk: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.BadRequestError, match="makes embeddings, and generates no text"):
        sdk.chat.completions.create(model=model, messages=talk)
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="no-such-model", input="a")


@pytest.mark.usefixtures("served")  # texts are kept by the model's identity, once the worker has told it
def test_the_same_input_is_computed_once(sdk: openai.OpenAI, store: TimedStore, model: str) -> None:
    answer = sdk.embeddings.create(model=model, input=["the sea"] * 5)
    assert len({tuple(one.embedding) for one in answer.data}) == 1
    assert answer.usage.prompt_tokens == 5 * 4
    sdk.embeddings.create(model=model, input="the sea")
    outcomes = [store.get(job_id).cache for job_id in jobs(store)]
    assert outcomes.count("miss") == 1
    sdk.embeddings.create(model=model, input="the sea", extra_body={"cache": False, "priority": "high"})
    assert {(job.cache, job.priority) for job in map(store.get, jobs(store))} >= {("bypass", "high")}


@pytest.mark.usefixtures("embedder")
def test_a_key_makes_the_same_jobs_again(sdk: openai.OpenAI, store: TimedStore, model: str) -> None:
    first, second = (
        sdk.embeddings.create(
            model=model, input=INPUTS, extra_headers={"Idempotency-Key": "twice"}, extra_body={"cache": False}
        )
        for _ in range(2)
    )
    assert first == second
    assert len(jobs(store)) == len(INPUTS)


@pytest.mark.usefixtures("embedder", "store")
def test_a_native_job_shows_the_numbers(api: Api, folder: Path) -> None:
    body = {"task": "embed", "prompt": INPUTS[0]}
    job = api.call("POST", "/v1/jobs", json=body, headers={"Prefer": "wait=30"}).json()
    assert job["status"] == "succeeded"
    assert job["output"] == {"text": "", "finish_reason": "stop", "embedding": reference(folder, INPUTS[0])}
    count = len(tokens(INPUTS[0]))
    assert job["usage"] == {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count, "cached_tokens": 0}
    events = api.call("GET", f"{job['urls']['self']}/events").text
    assert "embedding" in events
    refused = api.call("POST", "/v1/jobs", json=body | {"stop": ["."]})
    assert (refused.status_code, "stop: not with task embed" in refused.text) == (422, True)


def test_who_goes_away_takes_all_jobs_along_and_echo_embeds_nothing(own_server: EmbeddedServer, tmp_path: Path) -> None:
    with connect(own_server.url) as client, running(own_server, tmp_path, 1) as api:
        store = TimedStore(client, SETTINGS)
        sdk = openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0)
        with pytest.raises(openai.APITimeoutError):
            sdk.with_options(timeout=1.0).embeddings.create(model="echo", input=INPUTS)  # no worker is there
        wait_until(lambda: all(store.get(job_id).status is Status.CANCELLED for job_id in jobs(store)), 10)
        assert len(jobs(store)) == 4
        with worker(own_server), pytest.raises(openai.BadRequestError, match="echo cannot do embeddings") as caught:
            sdk.embeddings.create(model="echo", input=INPUTS)
        assert caught.value.code == "invalid_request"
