"""Workers that somebody else starts and ends: KEDA, systemd, people. The scaler counts them, and takes back what they
leave."""

from __future__ import annotations

from collections.abc import Sequence

from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import Exit, FleetCapabilities, Start


class ExternalFleet:
    """A `Fleet` without workers of its own. What dead workers held comes back when their leases end."""

    capabilities = FleetCapabilities(outlives=True)

    def take_over(self, _now: float) -> None:
        """Nothing is known of workers but that they register."""

    def trouble(self, _pool: str) -> str:
        """Whoever starts them has to say."""
        return ""

    def backs_off(self, _pool: str) -> bool:
        """Never."""
        return False

    def retry_in(self, _pool: str, _now: float) -> float | None:
        """Nothing is tried."""
        return None

    def roster(self) -> list[WorkerRecord]:
        """Nobody: those that register are others' workers."""
        return []

    def spawn(self, _count: int, _pool: str, _now: float) -> int:
        """None is started."""
        return 0

    def retire(self, names: Sequence[str], now: float) -> None:
        """Nobody is told to go."""

    def retire_all(self, now: float) -> None:
        """Nobody is told to go."""

    def kill(self) -> None:
        """Nobody is ended."""

    def poll(self, _now: float) -> list[Exit]:
        """No end is seen."""
        return []

    def observe(self, _registered: Sequence[WorkerRecord], _now: float) -> list[Start]:
        """No start is measured."""
        return []

    def pause_clocks(self, now: float) -> None:
        """No clock runs."""

    def prepare(self, wanted: int, now: float) -> None:
        """Nothing is prepared."""
