"""Files in S3: a real client (s3fs) against moto's server. `make test-extras` has both in .venvs/s3."""

from __future__ import annotations

import secrets
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import openai
import pytest

from promptq.queue.embedded import EmbeddedServer
from promptq.storage.storage import CHUNK_BYTES, PIECE_BYTES, ObjectMissing, Storage, StorageUnavailable
from tests.fakes import TimedStore
from tests.integration.apis import running
from tests.integration.batches import create, dispatcher, ended, entries, line, write
from tests.processes import ROOT, free_port, wait_until, worker

pytest.importorskip("s3fs", reason="s3fs is not in .venvs/s3")
SERVER = ROOT / ".venvs/s3/bin/moto_server"
BUCKET = "promptq"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where files are, on a server of the tests' own."""
    port = free_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        patch.setenv(name, value)
    process = subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def is_up() -> bool:
        with suppress(OSError):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
            return bool(urllib.request.urlopen(request, timeout=5).status == 200)
        return False

    try:
        wait_until(is_up, 60, "moto's server")
        yield f"s3://{BUCKET}/files"
    finally:
        process.kill()
        process.wait()
        patch.undo()


def test_objects_are_whole_or_not_there(url: str) -> None:
    storage = Storage(f"{url}/{secrets.token_hex(4)}")
    content = secrets.token_bytes(PIECE_BYTES + 3 * CHUNK_BYTES + 7)
    for size in (0, 10, len(content)):
        assert storage.write("files/a", [content[:size]]) == size
        assert b"".join(storage.read("files/a")) == content[:size]
    assert (
        b"".join(storage.read("files/a", PIECE_BYTES - 5, PIECE_BYTES + 5))
        == content[PIECE_BYTES - 5 : PIECE_BYTES + 5]
    )

    def chunks() -> Iterator[bytes]:
        yield content
        raise KeyError

    with pytest.raises(KeyError):
        storage.write("files/a", chunks())
    with pytest.raises(KeyError):
        storage.write("files/b", chunks())
    assert b"".join(storage.read("files/a")) == content
    assert storage.names("files") == ["a"]
    for _ in range(2):
        storage.delete("files/a")
    with pytest.raises(ObjectMissing):
        list(storage.read("files/a"))


def test_a_bucket_that_is_not_there_is_a_storage_that_does_not_answer() -> None:
    with pytest.raises((StorageUnavailable, ObjectMissing)):
        Storage("s3://nowhere/files").write("files/a", [b"x"])


def test_a_batch(url: str, server: EmbeddedServer, store: TimedStore, tmp_path: Path) -> None:
    with (
        running(server, tmp_path / "api", 1, files_url=url) as api,
        dispatcher(server, tmp_path / "dispatcher", files_url=url),
        worker(server, echo_tokens_per_second=0),
        openai.OpenAI(base_url=f"http://127.0.0.1:{api.port}/v1", api_key="any", max_retries=0) as sdk,
    ):
        batch = ended(sdk, create(sdk, write(tmp_path, [line(f"id-{number}") for number in range(50)])).id)
        assert batch.status == "completed"
        found = entries(sdk, batch.output_file_id)
        assert {entry["custom_id"] for entry in found} == {f"id-{number}" for number in range(50)}
        assert sdk.files.delete(batch.output_file_id).deleted
