"""A deployment's own secret: a file that the first process that needs it makes, for its user alone."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

from promptq.contract.errors import SettingsError

LEAST_CHARS: Final = 32


def read_or_make(setting: str, path: Path) -> str:
    """The secret; of several processes that make it at once all get the same.

    Raises:
        SettingsError: the file cannot be read or made, or is too short; the message names the setting.
    """
    try:
        with contextlib.suppress(FileExistsError):
            if not path.exists():
                _make(path)
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{setting}: {path} cannot be used: {error}") from None
    if len(secret) < LEAST_CHARS:
        raise SettingsError(f"{setting}: {path} has fewer than {LEAST_CHARS} characters")
    return secret


def _make(path: Path) -> None:
    """Raises FileExistsError where another was first. The file is there with its content, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
