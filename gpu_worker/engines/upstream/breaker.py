"""When a server that refuses is left alone, and how it is tried again. Pure: callers give the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FIRST_DELAY_SECONDS: Final = 1.0
LEAST_DELAY_SECONDS: Final = 0.05


@dataclass(slots=True)
class Breaker:
    """Closed: requests go out. Open: none does, until a delay is over. Then one at a time, until one is answered.

    Times are steady seconds; requests are known by increasing numbers.

    Args:
        most_seconds: the longest delay.
        chance: a number from 0 to 1, so that many workers do not all come again at once.

    Attributes:
        delay: of the last opening.
    """

    most_seconds: float
    chance: Callable[[], float]
    delay: float = 0.0
    _failures: int = 0
    _until: float = 0.0
    _is_open: bool = False
    _probe: int | None = None
    _newest: int = field(default=-1)
    _newest_before: int = field(default=-1)

    @property
    def is_open(self) -> bool:
        """Whether the server has refused, and answered nothing that was sent since."""
        return self._is_open

    def room(self, now: float) -> int | None:
        """How many requests may go out; None: as many as one likes."""
        if not self._is_open:
            return None
        return 0 if now < self._until or self._probe is not None else 1

    def sent(self, number: int) -> None:
        """A request went out."""
        self._newest = number
        if self._is_open:
            self._probe = number

    def answered(self, number: int) -> None:
        """A request got an answer. One that was sent before the server refused says nothing of it now."""
        if self._is_open and number > self._newest_before:
            self._is_open, self._failures, self._probe = False, 0, None

    def refused(self, number: int, now: float, retry_after: float | None) -> bool:
        """A request came to nothing. Tells whether that is news: of several at once the first one counts.

        Args:
            retry_after: seconds for which the server asked, if it did.
        """
        if self._is_open and number != self._probe:
            return False
        self._failures += 1
        self.delay = self._next_delay(retry_after)
        self._until, self._is_open, self._probe, self._newest_before = now + self.delay, True, None, self._newest
        return True

    def gone(self, number: int) -> None:
        """A request ended undecided: its row was cancelled. If it was the one that tried, the next one does."""
        if number == self._probe:
            self._probe = None

    def _next_delay(self, retry_after: float | None) -> float:
        """What the server asked for and a bit, or twice as long as the last time, from a half of it on."""
        if retry_after is not None:
            delay = retry_after * (1 + self.chance() / 10)
        else:
            delay = FIRST_DELAY_SECONDS * 2.0 ** min(self._failures - 1, 16) * (0.5 + self.chance() / 2)
        return min(max(delay, LEAST_DELAY_SECONDS), self.most_seconds)
