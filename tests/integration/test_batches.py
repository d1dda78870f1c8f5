"""Files and batches with the real openai SDK, real processes and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.apis import Api
from tests.integration.batches import create, dispatcher, ended, entries, line, write
from tests.integration.openai_clients import api, fast, sdk

__all__ = ["api", "fast", "sdk"]


@pytest.fixture
def running(server: EmbeddedServer, api: Api, fast: None) -> Iterator[None]:
    with dispatcher(server, api.data_dir):
        yield


@pytest.mark.usefixtures("running")
def test_upload_create_poll_and_read(sdk: openai.OpenAI, tmp_path: Path) -> None:
    lines = [line(f"id-{number}", f"word{number} and more") for number in range(20)]
    made = create(sdk, write(tmp_path, lines), metadata={"who": "me"})
    assert (made.status, made.metadata, made.output_file_id) == ("validating", {"who": "me"}, None)
    batch = ended(sdk, made.id)
    assert batch.status == "completed", batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
    found: dict[str, Any] = {entry["custom_id"]: entry for entry in entries(sdk, batch.output_file_id)}
    assert set(found) == {one["custom_id"] for one in lines}
    body = found["id-7"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "word7 and more"
    assert batch.error_file_id is None
