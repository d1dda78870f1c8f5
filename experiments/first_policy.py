"""The scaler with our first policy in place of the present one: experiments/scaler_burst.py starts it."""

from __future__ import annotations

import sys
from dataclasses import replace

import common  # noqa: F401 - it puts the root on the path
from sim_model import Sight
from sim_policies import Before

from scaler import __main__ as program
from scaler import policy, pools
from scaler.load import Limits, Load
from scaler.policy import Decision, History
from scaler.reasons import Reason


class FirstPolicy:
    """Wants as many workers as the first one did, of one model; what is measured, and told to who waits, is as ever."""

    def __init__(self) -> None:
        self._before = Before()

    def __call__(self, load: Load, history: History, limits: Limits, now: float) -> Decision:
        sight = Sight(
            now, load.queued, load.running, load.oldest_age_seconds, load.workers, load.starting, limits.max_workers,
            load.ended, load.start_seconds, load.coming_seconds,
        )  # fmt: skip
        self._before.slots = limits.slots
        workers = limits.clamp(self._before(sight))
        change = workers - load.workers
        reason = Reason.DEMAND if change > 0 else Reason.FEWER_NEEDED if change else Reason.STEADY
        return replace(policy.decide(load, history, limits, now), workers=workers, reason=reason)


if __name__ == "__main__":
    pools.decide = FirstPolicy()  # type: ignore[attr-defined]  # where the pools find it
    sys.exit(program.main())
