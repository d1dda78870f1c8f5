"""What was found out about a model or a machine once, kept in the data folder as JSON."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def read(path: Path) -> dict[str, Any] | None:
    """What is kept; None if nothing is, or nothing whole."""
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def write(path: Path, result: dict[str, Any], what: str) -> None:
    """Keep a result. A folder that cannot be written is no reason to fail: the next start finds it out anew.

    Args:
        what: the result is, for the warning.
    """
    partial = path.with_suffix(f".{time.monotonic_ns()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        log.warning("%s is not kept: %s", what, error)
