"""What a model's folder holds, by the names of its files. No torch here."""

from __future__ import annotations

from pathlib import Path

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
"""Weights in one file, or the index of several."""
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_SUFFIXES = frozenset({".model", ".tiktoken"})
TOKENIZERS = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "tekken.json"})


def has_pickles_only(source: str | Path) -> bool:
    """Whether a local folder has weights as torch writes them (`.bin`), and none as safetensors.

    Of a Hugging Face id only safetensors are taken.
    """
    return isinstance(source, Path) and _has_any(source, PICKLES) and not _has_any(source, SAFETENSORS)


def has_tokenizer(folder: Path) -> bool:
    """Whether some file of the folder may be a tokenizer."""
    return any(path.name in TOKENIZERS or path.suffix in TOKENIZER_SUFFIXES for path in folder.iterdir())


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)
