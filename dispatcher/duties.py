"""What a dispatcher does: independent duties, of which none waits for another's trouble to end."""

from __future__ import annotations

from typing import Protocol


class Duty(Protocol):
    """One of them. What several dispatchers must not do together it does under leases.

    Attributes:
        name: the label of its metrics.
        is_busy: whether its next round is to come soon.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_busy(self) -> bool: ...

    def run(self) -> None:
        """One round, which does not take long.

        Raises:
            RedisUnavailable, StorageUnavailable: the next round goes on.
        """
        ...

    def close(self) -> None:
        """The process is about to stop."""
        ...
