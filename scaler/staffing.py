"""How many workers a forecast needs. Pure.

Sources: square-root staffing, and the share of jobs that wait, by Halfin and Whitt (Operations Research 1981); the
correction of both for arrivals that are not Poisson by their variance over mean (Whitt, Management Science 1992).
"""

from __future__ import annotations

import math

LATE = 0.05
"""Share of the jobs that may wait longer than the target."""
CATCH_UP = 0.5
"""What waits is worked off in a service time, or in this part of a start, or in what is left of the target once workers
have come, whichever is longest."""
LULL = 0.25
"""Standard deviations of the load that are no reason to send workers away."""
STEPS = 16


def offered_load(rate: float, service: float, running: int, lasted: float) -> float:
    """Jobs that will be in service at once, of arrivals at this rate.

    What has only just begun is taken to go on for as long again as it has lasted: one look that is full may be a batch,
    which is a backlog and no rate.

    Args:
        rate: jobs a second.
        service: seconds.
        running: jobs that are in service now.
        lasted: seconds for which they have come at this rate.
    """
    return min(rate * service, running + rate * lasted)


def slots_for(offered: float, service: float, target: float, spread: float) -> float:
    """The fewest slots with which no more than LATE of the jobs wait longer than the target.

    That is offered + β √(offered × spread), for the least β whose waits are short enough.
    """
    if offered <= 0:
        return 0.0
    sigma, low, high = math.sqrt(offered * spread), 0.0, 4.0
    for _ in range(STEPS):
        beta = (low + high) / 2
        is_late = _share_waiting(beta) * math.exp(-beta * sigma * target / (service * spread)) > LATE
        low, high = (beta, high) if is_late else (low, beta)
    return offered + high * sigma


def _share_waiting(beta: float) -> float:
    """By Halfin and Whitt: 1 / (1 + β Φ(β) / φ(β))."""
    density = math.exp(-beta * beta / 2) / math.sqrt(2 * math.pi)
    below = (1 + math.erf(beta / math.sqrt(2))) / 2
    return 1 / (1 + beta * below / density)


def slots_for_backlog(left: float, offered: float, service: float, start: float, target: float) -> float:
    """Slots for the offered load and, beside it, for what will still wait when a worker that is started now is there.

    Args:
        left: jobs that will still wait then.
        service, start, target: seconds; the target is of waits.
    """
    return offered + left * service / max(service, start * CATCH_UP, target - start) if left > 0 else 0.0


def noise(running: int) -> float:
    """Slots by which the load moves of itself: no reason to send workers away."""
    return LULL * math.sqrt(max(running, 1))
