"""Tells one model from another by its files, without reading the weights. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

READ_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken"})
"""Configurations, chat templates and tokenizers: small, so their contents count."""
WEIGHT_SUFFIXES = frozenset({".safetensors", ".gguf", ".bin", ".pt", ".pth"})
"""Gigabytes, so their names, sizes and times stand for them."""


def model_fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over what a model's text depends on.

    Of configurations and tokenizers the contents count, of weights name, size and modification time in nanoseconds; in
    a Hugging Face cache, where a file's target is named by its hash, that name in place of the time. Other files, and
    where the folder lies, do not count.

    Args:
        folder: the model's, or one GGUF file.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{_mark(path)}\0".encode())
    return digest.hexdigest()


def adapted_fingerprint(model: str, adapter: str) -> str:
    """SHA-256 (hex) of a model with an adapter, of the fingerprints of both."""
    return hashlib.sha256(f"{model}\0{adapter}".encode()).hexdigest()


def model_identity(fingerprint: str, context: int, dtype: str) -> str:
    """SHA-256 (hex) over everything but the request that decides a text.

    Args:
        fingerprint: of the model's files.
        context: tokens of a row that are in force: a text ends there.
        dtype: the number format in use.
    """
    return hashlib.sha256(f"{fingerprint}\0{context}\0{dtype}".encode()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """The files that count; those of subfolders too, where templates are kept, but none that is hidden."""
    for path in [folder] if folder.is_file() else folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            yield from _files(path)
        elif path.suffix in READ_SUFFIXES | WEIGHT_SUFFIXES:
            yield path


def _mark(path: Path) -> str:
    """What changes when the file does."""
    if path.suffix in READ_SUFFIXES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    target, status = path.resolve(), path.stat()
    return f"{status.st_size} {target.name if target.parent.name == 'blobs' else status.st_mtime_ns}"
