"""When a program that died is started again, and when that is of no use. Pure: `now` is in steady seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from promptq.contract.exit_codes import ExitCode

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STANDING_SECONDS = 10.0
"""A program that lived this long could start."""
MOST_FAILED_STARTS = 5


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one program.

    Attributes:
        started_at: of its present or last process.
        falls: how often in a row it died before it had stood.
        has_stood: whether any of its processes has lived for STANDING_SECONDS.
    """

    started_at: float
    falls: int = 0
    has_stood: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about a death.

    Attributes:
        delay_seconds: until the next start; None: none is made, because the program cannot start.
        reason: why, in words.
    """

    delay_seconds: float | None
    reason: str
    history: History


def after_death(history: History, code: int, now: float) -> Decision:
    """Decide on a program that has just ended by itself.

    Args:
        code: its exit status; negative for a signal.
    """
    stood = now - history.started_at >= STANDING_SECONDS
    seen = replace(history, falls=0 if stood else history.falls + 1, has_stood=history.has_stood or stood)
    if code == ExitCode.SETTINGS:
        return Decision(None, "its settings are wrong", seen)
    if not seen.has_stood and seen.falls >= MOST_FAILED_STARTS:
        return Decision(None, f"it could not be started in {seen.falls} tries", seen)
    delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** max(0, seen.falls - 1))
    return Decision(delay, "it is started again", seen)


def started(history: History, now: float) -> History:
    """The program has been started again."""
    return replace(history, started_at=now)
