"""The laws that every fleet keeps, wherever its workers run. A new fleet is one more entry in FLEETS."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from promptq.contract.settings import child_environment
from scaler.fleets.base import REASONS, Exit, Fleet
from scaler.fleets.local import LocalFleet, LocalFleetSettings
from tests.memory_fleet import MemoryFleet
from tests.processes import wait_until

MOST = 3
WAITS = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)"


def local() -> Fleet:
    return LocalFleet(LocalFleetSettings(MOST, child_environment(), command=(sys.executable, "-c", WAITS)))


FLEETS: dict[str, Callable[[], Fleet]] = {"local": local, "memory": lambda: MemoryFleet(MOST)}


@pytest.fixture(params=FLEETS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = FLEETS[request.param]()
    yield made
    made.kill()
    ended(made, len(made.roster()))


def names(fleet: Fleet) -> list[str]:
    return [worker.name for worker in fleet.roster()]


def states(fleet: Fleet) -> set[str]:
    return {worker.state for worker in fleet.roster()}


def register(fleet: Fleet, now: float) -> list[float]:
    """All of them register, idle."""
    return fleet.observe([replace(worker, state="idle") for worker in fleet.roster()], now)


def ended(fleet: Fleet, count: int, now: float = 0.0) -> list[Exit]:
    found: list[Exit] = []

    def poll() -> bool:
        found.extend(fleet.poll(now))
        return len(found) >= count

    wait_until(poll, 20, f"{count} exits")
    return found


def test_what_is_spawned_is_in_the_roster_under_names_of_its_own(fleet: Fleet) -> None:
    assert fleet.roster() == []
    assert fleet.spawn(2, 0.0) == 2
    assert len(set(names(fleet))) == 2
    assert states(fleet) == {"starting"}


def test_there_are_never_more_than_fit(fleet: Fleet) -> None:
    assert fleet.spawn(MOST + 5, 0.0) == MOST
    assert fleet.spawn(1, 0.0) == 0
    assert len(fleet.roster()) == MOST
    assert fleet.spawn(-1, 0.0) == 0


def test_a_worker_that_registers_tells_once_how_long_it_took(fleet: Fleet) -> None:
    fleet.spawn(2, 10.0)
    assert fleet.observe([], 11.0) == []
    assert register(fleet, 13.5) == [3.5, 3.5]
    assert register(fleet, 14.0) == []
    assert states(fleet) == {"idle"}


def test_who_is_retired_drains_ends_and_is_told_once(fleet: Fleet) -> None:
    fleet.spawn(2, 0.0)
    register(fleet, 1.0)
    first, second = names(fleet)
    fleet.retire([first], 2.0)
    assert {worker.name: worker.state for worker in fleet.roster()}[first] == "draining"
    (end,) = ended(fleet, 1, 2.0)
    assert (end.name, end.reason) == (first, "retired")
    assert fleet.poll(3.0) == []
    assert names(fleet) == [second]


def test_all_can_be_retired(fleet: Fleet) -> None:
    fleet.spawn(MOST, 0.0)
    fleet.retire_all(1.0)
    assert {end.reason for end in ended(fleet, MOST, 1.0)} == {"retired"}
    assert fleet.roster() == []


def test_all_can_be_killed(fleet: Fleet) -> None:
    fleet.spawn(2, 0.0)
    fleet.kill()
    found = ended(fleet, 2)
    assert {end.reason for end in found} == {"killed"}
    assert all(end.reason in REASONS and end.name in str(end) for end in found)


def test_room_comes_back_with_an_exit(fleet: Fleet) -> None:
    fleet.spawn(MOST, 0.0)
    register(fleet, 1.0)
    fleet.retire(names(fleet)[:1], 1.0)
    ended(fleet, 1, 1.0)
    assert fleet.spawn(MOST, 2.0) == 1


def test_without_trouble_nothing_is_said_and_nothing_waits(fleet: Fleet) -> None:
    fleet.spawn(1, 0.0)
    fleet.pause_clocks(1.0)
    fleet.prepare(1, 1.0)
    assert (fleet.trouble, fleet.backs_off, fleet.retry_in(1.0)) == ("", False, None)
    assert fleet.capabilities.sees_exits
