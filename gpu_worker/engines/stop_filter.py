"""Cuts a text at a stop string, whatever pieces it comes in."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on until a stop string is complete, and holds back what may become one.

    The string that is complete first wins, and of two that end together the longer one: so the result
    does not depend on how the text was cut into pieces.

    Attributes:
        stopped: whether a stop string was found; nothing passes after it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> str:
        """Take more text; returns what can no longer be part of a stop string."""
        if self.stopped:
            return ""
        self._held += text
        start = self._match()
        self.stopped = start is not None
        return self._release(len(self._held) - self._overlap() if start is None else start)

    def flush(self) -> str:
        """The text held back, when no more will come."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _match(self) -> int | None:
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _overlap(self) -> int:
        return max((_overlap(self._held, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, short of all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
