"""A model that is changed under its name: real workers answer for themselves, and no cached text for another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis
import torch

from promptq.contract.job import Job, Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.records import Submitted
from tests.fakes import TimedStore, new_job
from tests.integration.tiny_engines import TINY, byte_tokenizer
from tests.processes import wait_until, worker

TOKENS = 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_tokenizer().save_pretrained(tmp_path)
    write_weights(tmp_path, 7)
    return tmp_path


def write_weights(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = TINY["llama"]()
    model.generation_config.update(min_new_tokens=TOKENS)  # so that the context ends its texts
    model.save_pretrained(folder)


@pytest.fixture
def store(client: redis.Redis, folder: Path) -> TimedStore:
    return TimedStore(client, WorkerSettings(_env_file=None, model=str(folder)))


def submit(store: TimedStore) -> Submitted:
    return store.submit(replace(new_job("hello", max_tokens=TOKENS), model=store.settings.default_model))


def text(store: TimedStore) -> str:
    """What a new job is answered with, by a worker."""
    submitted = submit(store)
    assert submitted.outcome == "new"

    def ended() -> Job | None:
        job = store.get(submitted.job.id)
        return job if job.status.is_terminal else None

    job = wait_until(ended, 30, "the job")
    assert job.status is Status.SUCCEEDED
    return str(job.result.text)


def test_a_raised_context_and_other_weights_are_not_answered_with_what_was_before(
    server: EmbeddedServer, store: TimedStore, folder: Path
) -> None:
    options = {"engine": "continuous", "model": folder, "slots": 2, "device": "cpu", "kernels": False}
    with worker(server, "short", **options, context_length=32):
        short = text(store)
        assert submit(store).outcome == "hit"
    with worker(server, "long", **options, context_length=64):
        long = text(store)
        assert long.startswith(short.rstrip("\ufffd"))
        assert len(long) > len(short)
    write_weights(folder, 8)
    with worker(server, "other", **options, context_length=64):
        assert text(store) != long
        assert submit(store).outcome == "hit"
