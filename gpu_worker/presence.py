"""What the worker says of itself to the others: idle, busy or draining, how many slots are in use, what is wrong."""

from __future__ import annotations

from typing import Protocol

from gpu_worker.engines.base import Engine, trouble_of


class Registration(Protocol):
    """Where it is said; see `gpu_worker.registration`."""

    @property
    def is_asked_to_drain(self) -> bool: ...

    def beat(self, phase: str, busy_slots: int, trouble: str = "") -> bool: ...


class Presence:
    """Beats for a worker with this engine.

    Attributes:
        draining: it claims nothing more and ends soon.
        is_replaced: another worker has its name now.
    """

    def __init__(self, registration: Registration, engine: Engine) -> None:
        self.draining = False
        self.is_replaced = False
        self._is_asked = False
        self._registration = registration
        self._engine = engine

    @property
    def is_over(self) -> bool:
        """Whether it is to work no longer: that, or somebody asks it to drain."""
        return self.is_replaced or self._is_asked

    def beat(self) -> None:
        """Say how it is now."""
        busy = self._engine.live_rows()
        phase = "draining" if self.draining else "busy" if busy else "idle"
        self.is_replaced = not self._registration.beat(phase, busy, trouble_of(self._engine))
        self._is_asked = self._registration.is_asked_to_drain
