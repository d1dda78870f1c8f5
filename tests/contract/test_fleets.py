"""What the scaler may rely on, whatever a fleet's workers are. A new fleet joins by a factory in fleet_rigs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promptq.queue.observe import WorkerRecord
from scaler.fleets.base import REASONS, Exit, Fleet, FleetCapabilities, Start
from tests.contract.fleet_rigs import FACTORIES, MOST, Rig
from tests.memory_fleet import POOL
from tests.processes import wait_until

LONG_SECONDS = 3600.0
"""Longer than any time-out of any fleet."""
Make = Callable[..., Rig]


@pytest.fixture(params=FACTORIES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    rigs: list[Rig] = []

    def rig(kind: str = "serves") -> Rig:
        rigs.append(FACTORIES[request.param](kind, tmp_path))
        return rigs[-1]

    yield rig
    for made in rigs:
        made.fleet.retire_all(0.0)
        made.fleet.kill()
        wait_until(lambda fleet=made.fleet: fleet.poll(0.0) is not None and not fleet.roster(), 240)
        getattr(made, "close", lambda: None)()


def exits(fleet: Fleet, now: float, count: int = 1) -> list[Exit]:
    """So many ends, each told once and for a reason with a name."""
    found: list[Exit] = []
    wait_until(lambda: found.extend(fleet.poll(now)) or len(found) >= count, 240, f"{count} exits")
    assert len({end.name for end in found}) == len(found) == count
    assert {end.reason for end in found} <= set(REASONS)
    return found


def names(fleet: Fleet) -> list[str]:
    return [worker.name for worker in fleet.roster()]


def states(fleet: Fleet) -> list[str]:
    return sorted(worker.state for worker in fleet.roster())


def register(fleet: Fleet, now: float, state: str = "idle", finished: int = 0) -> list[Start]:
    """Every worker is found registered, in this state."""
    return fleet.observe([replace(one, state=state, jobs_finished=finished) for one in fleet.roster()], now)


def test_a_new_fleet_is_empty_and_has_no_trouble(make: Make) -> None:
    fleet = make().fleet
    assert (fleet.roster(), fleet.poll(0.0), fleet.observe([], 0.0)) == ([], [], [])
    assert (fleet.trouble(POOL), fleet.backs_off(POOL), fleet.retry_in(POOL, 0.0)) == ("", False, None)
    assert isinstance(fleet.capabilities, FleetCapabilities)


def test_workers_start_under_names_of_their_own(make: Make) -> None:
    fleet = make().fleet
    assert fleet.spawn(2, POOL, 0.0) == 2
    assert states(fleet) == ["starting", "starting"]
    assert len(set(names(fleet))) == 2
    assert (fleet.spawn(0, POOL, 0.0), fleet.spawn(-1, POOL, 0.0)) == (0, 0)


def test_workers_that_drain_take_room_too(make: Make) -> None:
    rig = make("stubborn")
    assert rig.fleet.spawn(MOST + 2, POOL, 0.0) == MOST
    rig.settle()
    register(rig.fleet, 1.0)
    rig.fleet.retire(names(rig.fleet)[:1], 2.0)
    assert rig.fleet.spawn(1, POOL, 2.0) == 0
    assert not rig.fleet.backs_off(POOL)


def test_a_registered_workers_state_is_shown_and_its_start_is_told_once(make: Make) -> None:
    fleet = make().fleet
    fleet.spawn(2, POOL, 10.0)
    known, new = fleet.roster()
    assert fleet.observe([replace(known, state="idle")], 12.5) == [Start(POOL, 2.5)]
    assert states(fleet) == ["idle", "starting"]
    assert fleet.observe([replace(known, state="busy"), replace(new, state="idle")], 14.0) == [Start(POOL, 4.0)]
    assert states(fleet) == ["busy", "idle"]
    assert register(fleet, 15.0) == []


def test_a_stranger_in_the_registry_is_none_of_it(make: Make) -> None:
    fleet = make().fleet
    assert fleet.observe([WorkerRecord("stranger", "idle")], 0.0) == []
    assert fleet.roster() == []


def test_a_retired_worker_drains_and_ends_once(make: Make) -> None:
    rig = make()
    rig.fleet.spawn(2, POOL, 0.0)
    rig.settle()
    register(rig.fleet, 1.0)
    gone, stays = names(rig.fleet)
    rig.fleet.retire([gone], 2.0)
    register(rig.fleet, 2.5, "busy")
    assert states(rig.fleet) == ["busy", "draining"]
    assert [(end.name, end.reason) for end in exits(rig.fleet, 3.0)] == [(gone, "retired")]
    assert (names(rig.fleet), rig.fleet.poll(4.0)) == ([stays], [])
    assert (rig.fleet.trouble(POOL), rig.fleet.backs_off(POOL)) == ("", False)


def test_to_retire_twice_or_too_late_does_nothing(make: Make) -> None:
    rig = make()
    rig.fleet.spawn(1, POOL, 0.0)
    rig.settle()
    (name,) = names(rig.fleet)
    rig.fleet.retire([name], 1.0)
    rig.fleet.retire([name], 2.0)
    assert [end.reason for end in exits(rig.fleet, 3.0)] == ["retired"]
    rig.fleet.retire([name], 4.0)
    assert rig.fleet.poll(5.0) == []


def test_a_worker_that_will_not_end_is_killed_after_its_time(make: Make) -> None:
    rig = make("stubborn")
    rig.fleet.spawn(1, POOL, 0.0)
    rig.settle()
    rig.fleet.retire_all(10.0)
    assert rig.fleet.poll(11.0) == []
    assert [end.reason for end in exits(rig.fleet, 10.0 + LONG_SECONDS)] == ["drain_timeout"]
    assert not rig.fleet.backs_off(POOL)


def test_after_a_crash_it_waits_and_then_one_worker_probes_for_all(make: Make) -> None:
    rig = make("crashes")
    assert rig.fleet.spawn(2, POOL, 100.0) == 2
    ends = exits(rig.fleet, 100.0, 2)
    assert {end.reason for end in ends} == {"crashed"}
    assert ends[-1].name in rig.fleet.trouble(POOL)
    wait = rig.fleet.retry_in(POOL, 100.0)
    assert rig.fleet.backs_off(POOL)
    assert wait is not None
    assert wait > 0
    assert rig.fleet.spawn(2, POOL, 100.0) == 0
    rig.heal()
    assert rig.fleet.retry_in(POOL, 100.0 + wait) is None
    assert rig.fleet.spawn(2, POOL, 100.0 + wait) == 1
    register(rig.fleet, 101.0 + wait)
    assert (rig.fleet.trouble(POOL), rig.fleet.backs_off(POOL)) == ("", True)
    register(rig.fleet, 102.0 + wait, finished=1)
    assert not rig.fleet.backs_off(POOL)
    assert rig.fleet.spawn(2, POOL, 103.0 + wait) == 2


def test_a_worker_that_had_worked_is_replaced_at_once(make: Make) -> None:
    rig = make()
    rig.fleet.spawn(1, POOL, 0.0)
    register(rig.fleet, 1.0, finished=1)
    rig.strike(names(rig.fleet)[0])
    (end,) = exits(rig.fleet, 2.0)
    assert (end.reason, rig.fleet.trouble(POOL), rig.fleet.backs_off(POOL)) == ("killed", "", False)
    assert rig.fleet.spawn(1, POOL, 2.0) == 1


def test_a_worker_that_never_registers_is_killed(make: Make) -> None:
    fleet = make().fleet
    fleet.spawn(1, POOL, 0.0)
    fleet.observe([], 1.0)
    assert fleet.poll(1.0) == []
    fleet.observe([], LONG_SECONDS)
    (end,) = exits(fleet, LONG_SECONDS)
    assert (end.reason, end.name in fleet.trouble(POOL)) == ("start_timeout", True)


def test_a_worker_that_went_silent_is_killed(make: Make) -> None:
    fleet = make().fleet
    fleet.spawn(1, POOL, 0.0)
    register(fleet, 1.0)
    fleet.observe([], 10.0)
    register(fleet, 11.0)
    fleet.observe([], 10.0 + LONG_SECONDS)
    assert fleet.poll(10.0 + LONG_SECONDS) == []
    fleet.observe([], 10.0 + 2 * LONG_SECONDS)
    assert [end.reason for end in exits(fleet, 10.0 + 2 * LONG_SECONDS)] == ["unresponsive"]


def test_time_without_redis_counts_against_nobody(make: Make) -> None:
    fleet = make().fleet
    fleet.spawn(2, POOL, 0.0)
    seen = fleet.roster()[0]
    fleet.observe([replace(seen, state="idle")], 1.0)
    fleet.observe([], 2.0)
    fleet.pause_clocks(LONG_SECONDS)
    fleet.observe([], LONG_SECONDS + 1)
    assert fleet.poll(LONG_SECONDS + 1) == []


def test_what_is_prepared_is_no_worker(make: Make) -> None:
    fleet = make().fleet
    fleet.prepare(1, 0.0)
    assert (fleet.roster(), fleet.spawn(MOST + 1, POOL, 0.0)) == ([], MOST)


def test_retiring_all_empties_it(make: Make) -> None:
    rig = make()
    rig.fleet.spawn(MOST, POOL, 0.0)
    rig.settle()
    rig.fleet.retire_all(1.0)
    assert {end.reason for end in exits(rig.fleet, 2.0, MOST)} == {"retired"}
    assert rig.fleet.roster() == []


def test_killing_ends_those_that_will_not(make: Make) -> None:
    rig = make("stubborn")
    rig.fleet.spawn(2, POOL, 0.0)
    rig.settle()
    rig.fleet.retire_all(1.0)
    rig.fleet.kill()
    assert {end.reason for end in exits(rig.fleet, 2.0, 2)} == {"killed"}
