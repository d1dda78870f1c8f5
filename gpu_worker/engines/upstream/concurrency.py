"""How many requests a server gets at once, where nobody said: one more while all goes well, half when it has too much.

Pure: callers give the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROW_SECONDS: Final = 1.0
"""Between two steps up: about as long as a server needs to say that it has too much."""


@dataclass(slots=True)
class Concurrency:
    """Additive increase, multiplicative decrease (AIMD), as TCP does it.

    Args:
        limit: requests at once, now.
        least, most: its bounds; where they are one, it never changes.
    """

    limit: int
    least: int
    most: int
    _since: float | None = None
    _cut_at: int = -1

    def note(self, in_use: int, now: float) -> None:
        """So many requests are out. While all that may be are, and nothing is refused, one more may be in a second."""
        if in_use < self.limit:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= GROW_SECONDS and self.limit < self.most:
            self.limit, self._since = self.limit + 1, now

    def refused(self, number: int, newest: int, now: float) -> None:
        """The server has too much to do.

        Args:
            number: of the request that it refused.
            newest: of the last request sent: refusals of those up to it belong to one overload, and count once.
        """
        if number <= self._cut_at:
            return
        self._cut_at, self._since = newest, now
        self.limit = max(self.least, self.limit // 2)
