"""What a worker writes to its log for machines: objects only, one for each ended job, and nothing of its text."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, new_job
from tests.integration.tiny_engines import byte_tokenizer, tiny_model
from tests.processes import wait_until, worker

SECRET = "Geheimnis zur Mitternacht"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def log_of(server: EmbeddedServer, store: TimedStore, capfd: pytest.CaptureFixture[str], **settings: Any) -> list[dict]:
    """Every line of a worker that ran one job, drained and ended."""
    capfd.readouterr()
    new = replace(new_job(SECRET, cache=False, max_tokens=3), id="j1", request_id="r1")
    job = store.submit(new, time.time()).job
    with worker(server, log_format="json", **settings) as process:
        wait_until(lambda: store.get(job.id).status.is_terminal, 30, "the job's end")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    said = capfd.readouterr().err
    assert not any(word in said for word in SECRET.split())
    return [json.loads(line) for line in said.splitlines()]


def test_an_ended_job_is_one_line_with_its_ids(
    server: EmbeddedServer, store: TimedStore, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = log_of(server, store, capfd, echo_tokens_per_second=0)
    (end,) = [line for line in lines if line.get("job_id") == "j1"]
    assert (end["request_id"], end["worker"], end["status"], end["tokens"]) == ("r1", "w1", "succeeded", 3)
    assert 0 <= end["seconds"] < 60
    assert store.get("j1").result.text == SECRET  # the words that were looked for would have been there


def test_loading_a_model_writes_no_progress_bar(
    server: EmbeddedServer, store: TimedStore, capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    settings = {"engine": "continuous", "model": folder, "device": "cpu", "slots": 2, "context_length": 64}
    lines = log_of(server, store, capfd, **settings)
    assert any(line["message"].startswith("loaded ") for line in lines)
    assert [line["status"] for line in lines if line.get("job_id") == "j1"] == ["succeeded"]
