"""How many jobs batches may add to a queue, how urgent they are, and how often what has ended is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from promptq.contract.queues import Priority

AHEAD_SECONDS: Final = 5.0
"""So much work of batches waits in a queue, and no more: a batch that comes later begins that soon."""
LEAST_AHEAD: Final = 128
LAST_SHARE: Final = 0.1
"""Of a window: what is left in this last part of it is raised."""
MARGIN: Final = 1.5
"""A batch is behind if it needs more than the rest of its window divided by this."""

FIRST_WRITE_SECONDS: Final = 0.5
LAST_WRITE_SECONDS: Final = 60.0
SHARE_OF_AGE: Final = 0.01
"""The older a batch the less often it is written: so its parts stay few, and its counts true to a hundredth."""
MOST_LINES: Final = 1000
MOST_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of one model that wait now.

    Attributes:
        waiting: in all of its queues, those that joined another one included.
        low: of these, those of the priority `low`.
        rate: its jobs that end in a second; 0: not known.
    """

    waiting: int
    low: int
    rate: float


def room(queue: Queue, bound: int, share: float) -> int:
    """How many jobs batches may add.

    Args:
        bound: how many jobs of the model may wait at all.
        share: of the bound, what batches may fill.
    """
    ahead = max(LEAST_AHEAD, int(queue.rate * AHEAD_SECONDS))
    return max(0, min(int(bound * share) - queue.waiting, ahead - queue.low))


def priority(now: float, begins: float, ends: float, left: int, rate: float) -> tuple[Priority, str]:
    """How urgent a batch's jobs are, and why: `slack`, `window_ends` or `behind`. Times in seconds.

    Args:
        begins, ends: its window.
        left: lines that are not done.
        rate: lines of it that ended in a second, lately; 0: not known.
    """
    remaining = ends - now
    if remaining <= LAST_SHARE * (ends - begins):
        return "default", "window_ends"
    if rate > 0 and left / rate > remaining / MARGIN:
        return "default", "behind"
    return "low", "slack"


def is_due(age: float, since: float, lines: int, size: int) -> bool:
    """Whether what has ended is to be written now.

    Args:
        age: of the batch's run, in seconds.
        since: the last write, or the first line since, in seconds.
        lines, size: what is to be written, the size in bytes.
    """
    if lines >= MOST_LINES or size >= MOST_BYTES:
        return True
    return lines > 0 and since >= min(LAST_WRITE_SECONDS, max(FIRST_WRITE_SECONDS, SHARE_OF_AGE * age))
