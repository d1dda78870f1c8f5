"""`/v1/embeddings`: the real openai SDK, a real worker, and a tiny random BERT, or the echo engine, which has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.openai_clients import jobs
from tests.integration.tiny_encoders import save
from tests.processes import worker

INPUTS = ["the river was near", "a far town", "wind at night and at day on the road to the sea", "it"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, folder: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1, engine="continuous", model=folder) as api:
        yield api


@pytest.fixture(scope="module")
def embedding_worker(server: EmbeddedServer, folder: Any) -> Iterator[None]:
    with worker(server, engine="continuous", model=folder, device="cpu", worker_threads=1):
        yield


@pytest.fixture
def sdk(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def model(folder: Any) -> str:
    return str(folder)


def reference(folder: Any, ids: list[int]) -> list[float]:
    """The mean of a row's hidden states, made 1 long, of the row alone."""
    states = AutoModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state[0]
    return torch.nn.functional.normalize(states.mean(0), dim=0).tolist()


@pytest.mark.usefixtures("embedding_worker")
def test_each_input_has_its_embedding_in_order(sdk: openai.OpenAI, store: TimedStore, folder: Any, model: str) -> None:
    tokens = AutoTokenizer.from_pretrained(folder)(INPUTS, truncation=False)["input_ids"]
    answer = sdk.embeddings.create(model=model, input=INPUTS)
    assert [one.index for one in answer.data] == [0, 1, 2, 3]
    for one, ids in zip(answer.data, tokens, strict=True):
        np.testing.assert_allclose(one.embedding, reference(folder, ids), atol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, tokens))
    assert answer.model == model
    assert len(jobs(store)) == 4
