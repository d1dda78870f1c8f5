"""Who is told of the claims that a worker holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from promptq.queue.store import Claim, Ending


class ClaimWatcher(Protocol):
    """Is told of claims that come and go. Claiming waits for it, so it only takes notes."""

    def claimed(self, claims: Sequence[Claim], /) -> None:
        """These have come."""

    def stored(self, endings: Sequence[Ending], accepted: Sequence[bool], /) -> None:
        """These endings were sent; whether each was accepted."""

    def let_go(self, claims: Sequence[Claim], /) -> None:
        """These have no ending here: they were put back, or lost."""
