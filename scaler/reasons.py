"""Why a decision was taken: as a label, and in words for people. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaler.load import Load
    from scaler.policy import Outlook


class Reason(StrEnum):
    """Why a decision was taken: stable names, a label of `promptq_scaler_decisions_total`."""

    STEADY = "steady"
    AT_MAX = "at_max"
    DEMAND = "demand"
    FORECAST = "forecast"
    BACKLOG = "backlog"
    RETURNING = "returning"
    WAIT = "wait"
    FROM_ZERO = "from_zero"
    BELOW_MIN = "below_min"
    RECENT_NEED = "recent_need"
    RECENT_CHANGE = "recent_change"
    NOISE = "noise"
    FEWER_NEEDED = "fewer_needed"
    TO_ZERO = "to_zero"
    ZERO_DELAY = "zero_delay"
    HELD_REDIS_DOWN = "held_redis_down"
    HELD_BACKOFF = "held_backoff"
    HELD_DRAINING = "held_draining"
    LEAVING = "leaving"


WORDS = {
    Reason.STEADY: "{workers} workers are as many as are needed",
    Reason.AT_MAX: "more workers than the most that are allowed would have jobs",
    Reason.DEMAND: "{jobs} jobs need {need} workers; too few have ended to forecast more",
    Reason.FORECAST: "{expected:.2f} jobs a second of {service:.1f} s each need {need} workers",
    Reason.BACKLOG: "{queued} jobs would still wait when a worker comes, in {start:.0f} s: {need} workers",
    Reason.RETURNING: "a surge that has come twice is due: {need} workers",
    Reason.WAIT: "a job has waited for {oldest:.0f} s: one worker more",
    Reason.FROM_ZERO: "there is a job, and no worker yet",
    Reason.BELOW_MIN: "there are fewer workers than the least",
    Reason.RECENT_NEED: "{need} workers are needed now, but more were, or their jobs still run",
    Reason.RECENT_CHANGE: "{need} workers are needed, but the number went the other way less than a start ago",
    Reason.NOISE: "{need} workers would do, which chance may change",
    Reason.FEWER_NEEDED: "{expected:.2f} jobs a second of {service:.1f} s each need {need} workers only",
    Reason.ZERO_DELAY: "nothing is to be done, but the last worker stays for a while",
    Reason.TO_ZERO: "nothing has been to be done for long enough",
    Reason.HELD_REDIS_DOWN: "Redis cannot be read",
    Reason.HELD_BACKOFF: "workers crash: the next try waits",
    Reason.HELD_DRAINING: "workers that are going still take the room",
    Reason.LEAVING: "the model is not in the catalogue any more",
}


def words(reason: str, load: Load, outlook: Outlook) -> str:
    """Why there are as many workers as there are; empty for what the allocation of room decided."""
    form = {name.value: text for name, text in WORDS.items()}.get(reason, "")
    return form.format(
        workers=load.workers, jobs=load.jobs, queued=load.queued, oldest=load.oldest_age_seconds,
        start=load.start_seconds, need=outlook.need, expected=outlook.expected, service=outlook.service_seconds or 0.0,
    )  # fmt: skip
