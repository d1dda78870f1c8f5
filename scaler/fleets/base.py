"""What the scaler's loop asks of a fleet, wherever its workers run."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from promptq.queue.observe import WorkerRecord

REASONS: Final = (
    "retired", "drain_timeout", "start_timeout", "unresponsive", "settings", "engine", "engine_broken", "replaced",
    "redis_unavailable", "killed", "exited", "crashed", "evicted", "node_lost",
)  # fmt: skip
"""Why a worker can have ended; a label of `promptq_worker_exits_total`."""


@dataclass(frozen=True, slots=True)
class FleetCapabilities:
    """What a fleet can do beyond starting workers and telling them to go.

    Attributes:
        sees_exits: an Exit from `poll` means that the worker's process is gone for certain, unless it says otherwise,
            so the jobs that it held can be taken back at once; otherwise their leases are waited for.
        prepares: `prepare` makes the next start quicker.
        outlives: workers go on when this scaler ends or leads no more, and `take_over` of the next one finds them;
            otherwise they go with it.
    """

    sees_exits: bool = False
    prepares: bool = False
    outlives: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended.

    Attributes:
        reason: one of REASONS; killed means by a signal that was not ours, exited orderly, but nobody here asked,
            evicted that its cluster ended it, node_lost that its machine has gone from the cluster.
        code: the exit status; negative for a signal.
        words: the last line it wrote to stderr.
        is_certain: whether its process is gone for certain; else it may still hold, and renew, its leases.
    """

    name: str
    reason: str
    code: int = 0
    words: str = ""
    is_certain: bool = True

    def __str__(self) -> str:
        if self.reason == "node_lost":
            return f"{self.name} went with its node" + (f": {self.words}" if self.words else "")
        how = f"was ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"exited with code {self.code}"
        return f"{self.name} {how} ({self.reason})" + (f": {self.words}" if self.words else "")


@dataclass(frozen=True, slots=True)
class Start:
    """One worker that has registered, how many seconds after it was started, and whether it came from the spare."""

    pool: str
    seconds: float
    from_spare: bool = False


class Fleet(Protocol):
    """The workers that one scaler starts, those of each model a pool.

    `now` is in steady seconds throughout; one thread owns a fleet.
    """

    @property
    def capabilities(self) -> FleetCapabilities:
        """What it can do beyond this protocol; never changes."""
        ...

    def take_over(self, now: float) -> None:
        """This scaler leads from now on: forget what was known, and find the workers that an earlier leader left."""
        ...

    def trouble(self, pool: str) -> str:
        """Why workers of this pool do not start, or an empty string once one has registered since."""
        ...

    def backs_off(self, pool: str) -> bool:
        """Whether a crash keeps workers of this pool from starting as wanted."""
        ...

    def retry_in(self, pool: str, now: float) -> float | None:
        """Seconds until the next try after a crash, or None when nothing waits for it."""
        ...

    def roster(self) -> list[WorkerRecord]:
        """Every worker that is there or coming: its pool as `model`, and its state (starting, idle, busy, draining)."""
        ...

    def spawn(self, count: int, pool: str, now: float) -> int:
        """Start up to `count` workers of a pool. Tells how many: fewer where there is no room, or after crashes."""
        ...

    def retire(self, names: Sequence[str], now: float) -> None:
        """Tell workers to claim nothing more, finish what they run, and end. Those that have ended are passed over."""
        ...

    def retire_all(self, now: float) -> None:
        """Retire every worker, drop what `prepare` made, and prepare nothing more."""
        ...

    def kill(self) -> None:
        """End every worker at once, and what `prepare` made. Called in a signal handler."""
        ...

    def poll(self, now: float) -> list[Exit]:
        """Workers that have ended since the last call; ends those whose time to drain is over."""
        ...

    def observe(self, registered: Sequence[WorkerRecord], now: float) -> list[Start]:
        """Take in who is registered; ends who never came, or went silent.

        Returns:
            The workers that registered since the last call.
        """
        ...

    def pause_clocks(self, now: float) -> None:
        """Nobody can register, because Redis cannot be read: this time counts against no worker."""
        ...

    def prepare(self, wanted: int, now: float) -> None:
        """Make the next start quicker, where that takes nothing from workers that start. It makes no worker yet.

        Args:
            wanted: how many workers there should be.
        """
        ...
