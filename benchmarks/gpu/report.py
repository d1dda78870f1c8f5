"""What a stage has found so far, on disk at every moment: a stage that is ended leaves what it had."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Report:
    """One stage's results, by name.

    Args:
        path: the JSON file, replaced as a whole at each change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = {}

    def note(self, **facts: Any) -> None:
        """Keep these facts; a name that is there already is written over."""
        self.facts |= facts
        write(self._path, self.facts)

    def append(self, name: str, fact: dict[str, Any]) -> None:
        """Add one to the list of this name."""
        self.note(**{name: [*self.facts.get(name, []), fact]})

    def attempt(self, name: str, act: Callable[[], Any]) -> None:
        """Keep what it returns under this name, or the error that it raised: the next attempt may fare better."""
        try:
            found = act()
        except Exception as error:
            found = {"error": one_line(error), "traceback": traceback.format_exc()}
        self.note(**{name: found})


def broken_parts(facts: dict[str, Any]) -> list[str]:
    """The parts of a stage that failed, or in which something does not hold that must."""
    return [name for name, part in facts.items() if any(map(_is_broken, part if isinstance(part, list) else [part]))]


def _is_broken(part: Any) -> bool:
    return isinstance(part, dict) and ("error" in part or part.get("holds") is False)


def one_line(error: BaseException) -> str:
    """An exception in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]


def write(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole, on disk when this returns."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, default=str)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What is in a JSON file; nothing if there is none, or none that is whole."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
