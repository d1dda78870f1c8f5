"""Which pool has how many of the workers that this machine has room for. Pure: `now` in steady seconds.

A pool is one model's workers; the policy says how many it wants. Where there is room for all, each gets that. Where
there is not, need goes first, and models take turns: a pool that got a worker keeps it for its stay while others wait,
then the one that has waited longest is next. A stay is long beside what a swap costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

STAY_PER_SWAP: Final = 4.0
"""A stay is at least so many starts of such a worker: then at most a fifth of the time goes into swaps."""


class Share(StrEnum):
    """Why a pool has fewer workers than its policy wants: a label of `promptq_scaler_decisions_total`."""

    WAITS_FOR_ROOM = "waits_for_room"
    SHARES_ROOM = "shares_room"
    GAVE_WAY = "gave_way"


@dataclass(frozen=True, slots=True)
class Claimant:
    """One pool at one moment.

    Attributes:
        wanted: workers, by its policy.
        present: workers that are there or coming, draining ones not counted.
        starting: those of them that have not registered yet.
        units: of the room, for each worker; 0: its workers take none.
        least: workers that it always has.
        needs: whether jobs wait or run.
        held_back: its workers crash, and the time of the next try has not come.
        stay_seconds: for how long it keeps a worker while others wait.
    """

    name: str
    wanted: int
    present: int = 0
    starting: int = 0
    units: int = 1
    least: int = 0
    needs: bool = True
    held_back: bool = False
    stay_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Tenure:
    """What an allocation leaves to the next one.

    Attributes:
        since: when it last got a worker that has registered; infinite while it only starts; None: it has none.
        waits_since: since when it has had need and no worker.
        workers: that it had registered.
    """

    since: float | None = None
    waits_since: float | None = None
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """How many workers a pool is to have; where that is fewer than it wants, why, and who has the room."""

    workers: int
    share: Share | None = None
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """The grants, and what the next allocation needs to know."""

    grants: Mapping[str, Grant]
    tenures: Mapping[str, Tenure] = field(default_factory=dict)


def stay_seconds(least: float, swap_seconds: float) -> float:
    """How long a pool keeps a worker while others wait.

    Args:
        least: of all stays.
        swap_seconds: from the start of such a worker to its registration, as measured.
    """
    return max(least, STAY_PER_SWAP * swap_seconds)


def allocate(pools: Sequence[Claimant], tenures: Mapping[str, Tenure], room: int, now: float) -> Allocation:
    """Share `room` units out among the pools."""
    known = {pool.name: _tenure(pool, tenures.get(pool.name, Tenure()), now) for pool in pools}
    shares = _Shares(room)
    for pool in pools:
        shares.give(pool, pool.wanted if pool.units == 0 else pool.least)
    needing = [pool for pool in pools if pool.units and pool.needs and not pool.held_back and pool.wanted]
    _give_first_workers(needing, known, shares, now)
    _give_more(needing, known, shares, now)
    for pool in pools:
        if not pool.needs:
            shares.give(pool, min(pool.present, pool.wanted))
    return Allocation({pool.name: _grant(pool, pools, shares) for pool in pools}, known)


class _Shares:
    """Workers given so far."""

    def __init__(self, room: int) -> None:
        self.left = room
        self.given: dict[str, int] = {}

    def give(self, pool: Claimant, workers: int) -> bool:
        """Raise what a pool has to so many workers, or as many as fit. Tells whether all fit."""
        has = self.given.get(pool.name, 0)
        fit = workers if not pool.units else min(workers, has + self.left // pool.units)
        self.given[pool.name] = max(has, fit)
        self.left -= (self.given[pool.name] - has) * pool.units
        return fit == workers


def _tenure(pool: Claimant, before: Tenure, now: float) -> Tenure:
    registered = pool.present - pool.starting
    if not pool.present:
        waits = pool.needs and not pool.held_back
        return Tenure(waits_since=(now if before.waits_since is None else before.waits_since) if waits else None)
    if not registered:
        return Tenure(since=math.inf)
    gained = before.since is None or before.since == math.inf or registered > before.workers
    return Tenure(since=now if gained else before.since, workers=registered)


def _stays(pool: Claimant, tenure: Tenure, now: float) -> bool:
    return tenure.since is not None and now - tenure.since < pool.stay_seconds


def _give_first_workers(
    needing: Sequence[Claimant], tenures: Mapping[str, Tenure], shares: _Shares, now: float
) -> None:
    """One worker each: who is in his stay, then who waits, in the order of waiting, then who has had his turn.

    Where the next in line does not fit, nobody behind him gets a worker that he has not got already: a pool whose
    workers are large would else wait for ever. Those there are may stay until there is room for him.
    """
    holders = [pool for pool in needing if pool.present]
    for pool in holders:
        if _stays(pool, tenures[pool.name], now):
            shares.give(pool, 1)
    waiting = sorted((pool for pool in needing if not pool.present), key=lambda p: tenures[p.name].waits_since or now)
    for pool in waiting:
        if not shares.give(pool, 1):
            break
    for pool in sorted(holders, key=lambda p: -(tenures[p.name].since or 0.0)):
        shares.give(pool, 1)


def _give_more(needing: Sequence[Claimant], tenures: Mapping[str, Tenure], shares: _Shares, now: float) -> None:
    """The rest: first what is there and in its stay, then one by one to whoever has the least of what he wants."""
    for pool in needing:
        if _stays(pool, tenures[pool.name], now):
            shares.give(pool, min(pool.present, pool.wanted))
    someone_waits = any(not shares.given.get(pool.name) for pool in needing)
    most = {pool.name: min(pool.present, pool.wanted) if someone_waits else pool.wanted for pool in needing}
    while short := [pool for pool in needing if _fits_one_more(pool, shares, most)]:
        next_one = min(short, key=lambda p: (shares.given.get(p.name, 0) / p.wanted, -p.present))
        shares.give(next_one, shares.given.get(next_one.name, 0) + 1)


def _fits_one_more(pool: Claimant, shares: _Shares, most: Mapping[str, int]) -> bool:
    return 0 < shares.given.get(pool.name, 0) < most[pool.name] and pool.units <= shares.left


def _grant(pool: Claimant, pools: Sequence[Claimant], shares: _Shares) -> Grant:
    workers = shares.given.get(pool.name, 0)
    if workers >= pool.wanted or pool.held_back:
        return Grant(max(workers, pool.present if pool.held_back else 0))
    others = tuple(other.name for other in pools if other is not pool and other.units and shares.given.get(other.name))
    if workers < pool.present:
        return Grant(workers, Share.GAVE_WAY, others)
    return Grant(workers, Share.SHARES_ROOM if workers else Share.WAITS_FOR_ROOM, others)
