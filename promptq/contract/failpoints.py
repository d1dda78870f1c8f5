"""Failpoints: the places at which a process can be made to fail, and how a setting says so. Pure.

A crash in between two effects that belong together is what recovery is for; each such place has a name here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator

Point = Literal[
    "worker.claimed", "worker.started", "worker.stepped", "worker.progress_sending", "worker.progress_kept",
    "worker.finished", "worker.stored", "worker.releasing", "worker.released", "worker.gave_way", "worker.put_back",
    "worker.renewing",
    "dispatcher.submitting", "dispatcher.submitted", "dispatcher.part_written", "dispatcher.committed",
    "dispatcher.assembled", "dispatcher.batch_ended", "dispatcher.redrive_written", "dispatcher.ends_noted",
    "dispatcher.sent", "dispatcher.file_deleted",
    "storage.synced",
    "scaler.spawned", "scaler.exit_seen", "scaler.taken_back",
    "api.submitted", "api.many_submitted", "api.file_stored", "api.batch_created",
]  # fmt: skip
"""Where: after what its name says has happened, and before anybody else can know of it."""
POINTS: Final[tuple[Point, ...]] = get_args(Point)

Action = Literal["kill", "exit", "raise", "unavailable", "sleep"]
"""kill: SIGKILL to itself; exit: the process ends at once; raise: an exception that nobody has foreseen; unavailable:
that Redis does not answer, as when its answer is lost; sleep: so many seconds."""

_TRAP = re.compile(r"(kill|exit|raise|unavailable|sleep\((\d+(?:\.\d+)?)\))(?:@([1-9]\d{0,8}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trap:
    """What happens at a point, once: at its `at_hit`-th hit in a process. `seconds`: of a sleep."""

    action: Action
    at_hit: int = 1
    seconds: float = 0.0


def parse(text: str) -> Mapping[Point, Trap]:
    """Read `name=action[@hit];…`, as `worker.stored=kill@3;api.submitted=sleep(0.5)`.

    Raises:
        ValueError: a name or an action is unknown, or a name comes twice.
    """
    traps: dict[Point, Trap] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, action = item.partition("=")
        point = _point(name.strip())
        if point in traps:
            raise ValueError(f"{point} comes twice")
        traps[point] = _trap(action.strip())
    return traps


def _point(name: str) -> Point:
    for point in POINTS:
        if point == name:
            return point
    close = difflib.get_close_matches(name, POINTS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"there is no failpoint {name!r}{hint}")


def _trap(text: str) -> Trap:
    match = _TRAP.fullmatch(text)
    if not match or (match[2] and not math.isfinite(float(match[2]))):
        raise ValueError(f"{text!r} is no action: kill, exit, raise, unavailable or sleep(seconds), and @hit behind it")
    action: Action = "sleep" if match[2] else match[1]  # type: ignore[assignment]
    return Trap(action, int(match[3] or 1), float(match[2] or 0))


def _checked(text: str) -> str:
    parse(text)
    return text


Failpoints = Annotated[str, AfterValidator(_checked)]
"""The setting's type."""
