"""What follows from one try to deliver an event. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WAITS: Final = (5, 60, 300, 1800, 7200, 18_000, 36_000, 64_800, 72_000)
"""Seconds from a failed try to the next one: ten tries, over some 56 hours and at most three days."""
TRIES: Final = len(WAITS) + 1
JITTER: Final = 0.2
"""The share of a wait that is added at most, so that what failed together does not come back together."""
LONGEST_RETRY_AFTER: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try.

    Attributes:
        status: of the HTTP response; 0: there was none.
        retry_after: seconds that the response asks to wait for; 0: it does not say.
        trouble: why there was no response, in a few words.
    """

    status: int = 0
    retry_after: float = 0.0
    trouble: str = ""

    @property
    def words(self) -> str:
        """For the list of deliveries."""
        return self.trouble or f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Not yet. `after`: seconds from now."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It is not tried again. `disables`: the endpoint is sent no more events."""

    reason: str
    disables: bool


Step = Delivered | TryAgain | GiveUp


def next_step(answer: Answer, tries: int, jitter: float) -> Step:
    """What to do after a try.

    A 2xx is a delivery. All else is a failure, a redirect too: an event goes to the address that was given and to no
    other. 410 says that nobody will listen there again.

    Args:
        tries: made so far, this one included.
        jitter: drawn from 0 to 1.
    """
    if 200 <= answer.status < 300:
        return Delivered()
    if answer.status == 410:
        return GiveUp("The receiver answered 410: it is gone.", disables=True)
    if tries >= TRIES:
        return GiveUp(f"{TRIES} tries failed; the last one: {answer.words}.", disables=True)
    wait = WAITS[tries - 1] * (1 + JITTER * jitter)
    return TryAgain(max(wait, min(answer.retry_after, LONGEST_RETRY_AFTER)), answer.words)
