"""The main job on the real model, as `make up` starts it: submit over REST, generate in a batch, poll."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from promptq.contract.environment import child_environment
from promptq.contract.settings import WorkerSettings
from tests.processes import ROOT, free_port, wait_until

QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
TOPICS = ["the sea", "a red fox", "old maps", "bread", "the moon", "a small town", "winter", "music"]


class Service:
    """A running `make up`, spoken to over HTTP."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.port = free_port()
        values = {
            "DATA_DIR": folder,
            "API_PORT": self.port,
            "SCALER_PORT": free_port(),
            "DISPATCHER_PORT": 0,
            "MAX_WORKERS": 1,
            **settings,
        }
        environment = child_environment(**{f"PROMPTQ_{name}": str(value) for name, value in values.items()})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "promptq", "up"], cwd=ROOT, env=environment, process_group=0
        )

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def finished(self, body: Any) -> Any:
        status, job = self.call("POST", "/v1/jobs", body)
        assert status in (200, 202)
        return wait_until(lambda: self._ended(job["id"]), 300, job["id"])

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "make up ended"
        try:
            return any(worker["state"] == "idle" for worker in self.call("GET", "/v1/workers")[1].get("workers", ()))
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def _ended(self, job_id: str) -> Any:
        job = self.call("GET", f"/v1/jobs/{job_id}?wait=30")[1]
        return job if job["status"] not in ("queued", "running") else None


@pytest.fixture(scope="module")
def service(warm: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    warm(folder)
    running = Service(folder, ENGINE="continuous")
    try:
        wait_until(running.is_ready, 240, "a worker with the model")
        yield running
        assert running.stop() == 0
    finally:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)


def test_the_readmes_request_names_paris(service: Service) -> None:
    status, job = service.call("POST", "/v1/jobs", QUESTION, Prefer="wait=60")
    assert status == 200
    assert "Paris" in job["output"]["text"]
    assert job["usage"]["total_tokens"] > 0


def test_without_a_wait_the_answer_is_202_and_the_poll_gets_there(service: Service) -> None:
    body = {**QUESTION, "cache": False}
    started = time.monotonic()
    status, job = service.call("POST", "/v1/jobs", body)
    assert (status, job["status"], job["output"]) == (202, "queued", None)
    assert time.monotonic() - started < 2
    assert "Paris" in service.finished(body)["output"]["text"]


def test_the_same_request_again_is_a_cache_hit(service: Service) -> None:
    body = {"prompt": "The three primary colours are", "max_tokens": 12}
    first = service.finished(body)
    status, again = service.call("POST", "/v1/jobs", body)
    assert (status, again["cache"], again["output"]) == (200, "hit", first["output"])


def test_identical_requests_at_the_same_moment_are_generated_once(service: Service) -> None:
    body = {"prompt": "Counting slowly: one, two, three,", "max_tokens": 32}
    with ThreadPoolExecutor(20) as pool:
        jobs = list(pool.map(service.finished, [body] * 20))
    assert len({job["id"] for job in jobs}) == 20
    assert len({job["output"]["text"] for job in jobs}) == 1
    assert sum(job["attempts"] for job in jobs) == 1


def test_a_mixed_batch_gives_what_each_prompt_gives_alone(service: Service) -> None:
    bodies = [
        {"prompt": f"Story {i} begins with " + ", ".join(TOPICS[: 1 + i % 8]) + ", and", "max_tokens": 8 + 2 * (i % 7)}
        for i in range(12)
    ]
    with ThreadPoolExecutor(12) as pool:
        jobs = list(pool.map(service.finished, bodies))
    assert min(job["timings"]["batch_size"] for job in jobs) > 5
    model, tokenizer = reference()
    pairs = [(alone(model, tokenizer, body), job["output"]["text"]) for body, job in zip(bodies, jobs, strict=True)]
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


def reference() -> tuple[Any, Any]:
    from gpu_worker.engines.continuous.loading.loader import load

    return load(WorkerSettings(_env_file=None, data_dir=ROOT / ".promptq", device="cpu", dtype="float32"))


def alone(model: Any, tokenizer: Any, body: Any) -> str:
    """What `model.generate` gives for this prompt by itself: greedy, float32."""
    import torch

    inputs = tokenizer(body["prompt"], return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=body["max_tokens"], do_sample=False)
    return tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
