"""What the tests with the real openai SDK share."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.processes import worker

WORDS = " ".join(f"wörd{number}" for number in range(20))


@pytest.fixture(scope="module")
def api(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, tmp_path_factory.mktemp("api"), 1) as api:
        yield api


@pytest.fixture
def sdk(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def fast(server: EmbeddedServer, store: TimedStore) -> Iterator[None]:
    with worker(server, echo_tokens_per_second=0):
        yield


@pytest.fixture
def slow(server: EmbeddedServer, store: TimedStore) -> Iterator[None]:
    with worker(server, echo_tokens_per_second=10):
        yield


def jobs(store: TimedStore) -> list[str]:
    return [key.decode().removeprefix("rq:job:") for key in store.client.keys("rq:job:*")]
