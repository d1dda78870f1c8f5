"""How long a worker took to start, by part: what the wait for a new worker is made of."""

from __future__ import annotations

import time

import psutil


class Startup:
    """Notes the parts of one start, one after another.

    Args:
        assigned_at: when a spare became this worker; None: it starts as one, and began with the process.
    """

    def __init__(self, assigned_at: float | None = None) -> None:
        self._began = self._last = assigned_at or psutil.Process().create_time()
        self._parts: list[tuple[str, float]] = []
        self.done("assignment" if assigned_at else "python")

    def done(self, part: str) -> None:
        """The part that ends now, and began when the one before ended."""
        now = time.time()
        self._parts.append((part, now - self._last))
        self._last = now

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in self._parts)
        return f"{self._last - self._began:.2f} s ({parts})"
