"""What of a model's files makes it another model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_worker.engines.continuous.loading.fingerprint import model_fingerprint

FILES = {
    "config.json": "{}",
    "generation_config.json": "{}",
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tool.jinja": "{{ tools }}",
    "merges.txt": "a b",
    "tokenizer.model": "pieces",
    "model-00001-of-00002.safetensors": "weights",
    "model-00002-of-00002.safetensors": "weights",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _later(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def _longer(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text() + " ")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _renamed(path: Path) -> None:
    path.rename(path.with_stem("other"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [_longer, _renamed, Path.unlink])
def test_a_change_of_any_file_is_another_model(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    before = model_fingerprint(folder)
    change(folder / name)
    assert model_fingerprint(folder) != before


def test_weights_that_were_written_again_are_another_model(folder: Path) -> None:
    before = model_fingerprint(folder)
    _later(folder / "model-00002-of-00002.safetensors")
    assert model_fingerprint(folder) != before


def test_a_text_file_that_was_written_again_is_the_same(folder: Path) -> None:
    before = model_fingerprint(folder)
    _later(folder / "config.json")
    assert model_fingerprint(folder) == before


def test_neither_its_place_nor_what_no_model_reads_counts(folder: Path, tmp_path: Path) -> None:
    before = model_fingerprint(folder)
    (folder / "README.md").write_text("a model")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes.json").write_text("{}")
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy2)
    assert model_fingerprint(tmp_path / "copy") == model_fingerprint(folder) == before


def test_in_a_hub_cache_the_hash_counts_and_not_the_time_of_the_download(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    link = tmp_path / "snapshots" / "model.safetensors"
    for blob in ("hash-a", "hash-b"):
        (tmp_path / "blobs" / blob).write_text("weights")
    link.symlink_to("../blobs/hash-a")
    first = model_fingerprint(tmp_path / "snapshots")
    _later(tmp_path / "blobs" / "hash-a")
    assert model_fingerprint(tmp_path / "snapshots") == first
    link.unlink()
    link.symlink_to("../blobs/hash-b")
    assert model_fingerprint(tmp_path / "snapshots") != first


def test_a_gguf_file_is_its_own_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_text("weights")
    before = model_fingerprint(file)
    _later(file)
    assert model_fingerprint(file) != before


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        model_fingerprint(tmp_path / "gone")


def test_it_needs_no_torch() -> None:
    code = "import sys; import gpu_worker.engines.continuous.loading.fingerprint; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
