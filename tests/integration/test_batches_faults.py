"""Batches whose dispatcher dies, that are cancelled, run again, or not done in time."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import openai
import pytest
import requests

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api
from tests.integration.batches import create, dispatcher, ended, entries, line, write
from tests.integration.openai_clients import api, sdk
from tests.processes import wait_until, worker

__all__ = ["api", "sdk"]


def test_a_dispatcher_that_is_killed_loses_no_line_and_writes_none_twice(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    lines = [line(f"id-{number}", f"word{number} b c d") for number in range(400)]
    with worker(server, slots=16, echo_tokens_per_second=100):
        with dispatcher(server, api.data_dir, lease_seconds=2) as first:
            made = create(sdk, write(tmp_path, lines))
            wait_until(lambda: sdk.batches.retrieve(made.id).request_counts.completed > 20, 30, "some lines")
            first.send_signal(signal.SIGKILL)
            first.wait()
        partial = sdk.files.with_raw_response.content(sdk.batches.retrieve(made.id).output_file_id)
        assert partial.headers["X-Incomplete"] == "true"
        assert 20 < len(partial.content.splitlines()) < 400
        with dispatcher(server, api.data_dir, lease_seconds=2), dispatcher(server, api.data_dir, lease_seconds=2):
            batch = ended(sdk, made.id)
    written = entries(sdk, batch.output_file_id) + entries(sdk, batch.error_file_id)
    assert Counter(entry["custom_id"] for entry in written) == Counter(f"id-{number}" for number in range(400))
    assert (batch.status, batch.request_counts.completed) == ("completed", 400)
    assert all(
        entry["response"]["body"]["choices"][0]["message"]["content"] == f"word{entry['custom_id'][3:]} b c d"
        for entry in written
    )


def test_a_cancelled_batch_keeps_what_ran_and_runs_the_rest_when_it_is_retried(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    with dispatcher(server, api.data_dir):
        with worker(server, slots=2, echo_tokens_per_second=20):
            made = create(sdk, write(tmp_path, [line(f"id-{number}") for number in range(100)]))
            wait_until(lambda: sdk.batches.retrieve(made.id).request_counts.completed, 30, "a line")
            assert sdk.batches.cancel(made.id).status == "cancelling"
            batch = ended(sdk, made.id)
        counts = batch.request_counts
        assert batch.status == "cancelled"
        assert 0 < counts.completed < 100 == counts.completed + counts.failed
        first_error_file = batch.error_file_id
        errors = entries(sdk, first_error_file)
        assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}
        with pytest.raises(openai.ConflictError):
            sdk.batches.cancel(made.id)
        with worker(server, "w2", echo_tokens_per_second=0):
            one = errors[3]["custom_id"]
            assert _retry(api, made.id, custom_id=one).json()["status"] == "in_progress"
            batch = ended(sdk, made.id)
            assert batch.request_counts.failed == counts.failed - 1
            assert one in {entry["custom_id"] for entry in entries(sdk, batch.output_file_id)}
            assert _retry(api, made.id, custom_id=one).status_code == 400
            assert _retry(api, made.id).ok
            batch = ended(sdk, made.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 100, 0)
        found = Counter(entry["custom_id"] for entry in entries(sdk, batch.output_file_id))
        assert found == Counter(f"id-{number}" for number in range(100))
        assert _retry(api, made.id).status_code == 409
    left = api.data_dir / "files/files" / first_error_file
    assert left.read_bytes() == b"", "entries of lines that have an answer now"


def _retry(api: Api, batch_id: str, **query: str) -> requests.Response:
    return api.call("POST", f"/v1/batches/{batch_id}/retry", params=query)


def test_a_batch_whose_input_is_gone_ends(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    made = create(sdk, write(tmp_path, [line("a")]))
    (api.data_dir / "files/files" / made.input_file_id).unlink()
    with dispatcher(server, api.data_dir):
        batch = ended(sdk, made.id)
    assert (batch.status, [error.code for error in batch.errors.data]) == ("failed", ["input_file_missing"])


def test_what_has_not_run_when_the_window_ends_is_written_as_expired(
    sdk: openai.OpenAI, server: EmbeddedServer, api: Api, store: TimedStore, tmp_path: Path
) -> None:
    with dispatcher(server, api.data_dir):
        made = create(sdk, write(tmp_path, [line("a"), line("b")]), window="1h")
        wait_until(lambda: store.client.llen(store.keys.queue("low")) == 2, 20, "the jobs")
        store.client.hset(store.keys.batch(made.id), "expires_at", store.now() - 1)
        batch = ended(sdk, made.id)
    assert (batch.status, batch.request_counts.failed) == ("expired", 2)
    errors = entries(sdk, batch.error_file_id)
    assert [entry["error"]["code"] for entry in errors] == ["batch_expired"] * 2
    assert store.client.llen(store.keys.queue("low")) == 0
