"""The storage: whole or not at all, and read from any place. `memory://` stands for stores without folders."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.contract.errors import SettingsError
from promptq.storage.storage import CHUNK_BYTES, ObjectMissing, Storage, StorageUnavailable


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/at" if request.param == "file" else f"memory://{secrets.token_hex(4)}")


def test_what_is_written_can_be_read_from_any_place(storage: Storage) -> None:
    content = secrets.token_bytes(2 * CHUNK_BYTES + 100)
    assert storage.write("files/a", [content[:1000], content[1000:]]) == len(content)
    assert b"".join(storage.read("files/a")) == content
    assert b"".join(storage.read("files/a", 10, CHUNK_BYTES + 20)) == content[10 : CHUNK_BYTES + 20]
    assert b"".join(storage.read("files/a", len(content) - 5)) == content[-5:]
    assert storage.names("files") == ["a"]
    storage.write("files/a", [b"another"])
    assert b"".join(storage.read("files/a")) == b"another"


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/at")  # fsspec's memory shows what is written as it comes
    storage.write("files/a", [b"old"])

    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise KeyError

    with pytest.raises(KeyError):
        storage.write("files/a", chunks())
    assert b"".join(storage.read("files/a")) == b"old"
    assert storage.names("files") == ["a"]


def test_lines(storage: Storage) -> None:
    lines = [b"x" * size for size in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5)]
    storage.write("a", [b"\n".join(lines)])
    assert list(storage.lines("a")) == lines
    storage.write("b", [b"one\ntwo\n"])
    assert list(storage.lines("b")) == [b"one", b"two"]


def test_what_is_deleted_is_gone_and_may_be_deleted_again(storage: Storage) -> None:
    storage.write("batches/1/p", [b"x"])
    storage.write("batches/2/p", [b"x"])
    for _ in range(2):
        storage.delete("batches/1/")
    with pytest.raises(ObjectMissing):
        list(storage.read("batches/1/p"))
    assert b"".join(storage.read("batches/2/p")) == b"x"


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "at").write_text("a file where a folder should be")
    with pytest.raises(StorageUnavailable, match="does not answer"):
        Storage(f"file://{tmp_path}/at").write("files/a", [b"x"])


@pytest.mark.parametrize("url", ["nowhere://x", "file+x://y"])
def test_a_url_of_no_known_kind_is_a_setting_that_is_wrong(url: str) -> None:
    with pytest.raises(SettingsError, match="PROMPTQ_FILES_URL"):
        Storage(url)


def test_what_a_killed_writer_left_goes_with_its_object(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/at")
    for name in ("a", "a.0123.tmp", "a.b", "ab.0123.tmp"):
        storage.write(f"files/{name}", [b"x"])
    storage.delete("files/a")
    assert sorted(storage.names("files")) == ["a.b", "ab.0123.tmp"]
    storage.delete("files/ab")
    assert storage.names("files") == ["a.b"]
