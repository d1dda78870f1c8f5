"""Who gets the room: cases, and laws over random loads on a machine whose workers take time to start and to drain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.allocation import Allocation, Claimant, Grant, Share, Tenure, allocate, stay_seconds

NOW = 1000.0
STAY = 30.0


def pool(name: str, wanted: int = 1, present: int = 0, **fields: object) -> Claimant:
    return replace(Claimant(name, wanted, present, stay_seconds=STAY), **fields)


def workers(done: Allocation) -> dict[str, int]:
    return {name: grant.workers for name, grant in done.grants.items()}


def held(since: float, count: int = 1) -> Tenure:
    return Tenure(since=since, workers=count)


class TestRoomForAll:
    def test_each_gets_what_it_wants(self) -> None:
        done = allocate([pool("a", 3), pool("b", 2), pool("c", 0, needs=False)], {}, 5, NOW)
        assert workers(done) == {"a": 3, "b": 2, "c": 0}
        assert {grant.share for grant in done.grants.values()} == {None}

    def test_who_computes_elsewhere_takes_no_room(self) -> None:
        assert workers(allocate([pool("a", 9, units=0), pool("b", 2)], {}, 2, NOW)) == {"a": 9, "b": 2}

    def test_who_has_nothing_to_do_keeps_what_he_has(self) -> None:
        assert workers(allocate([pool("a", 1, 1, needs=False), pool("b", 1)], {"a": held(0.0)}, 2, NOW)) == {
            "a": 1, "b": 1,
        }  # fmt: skip


class TestNeedGoesFirst:
    def test_who_has_nothing_to_do_gives_way_at_once(self) -> None:
        done = allocate([pool("a", 1, 1, needs=False), pool("b", 1)], {"a": held(NOW - 1)}, 1, NOW)
        assert done.grants == {"a": Grant(0, Share.GAVE_WAY, ("b",)), "b": Grant(1)}

    def test_a_promised_least_is_kept(self) -> None:
        done = allocate([pool("a", 1, 1, needs=False, least=1), pool("b", 1)], {"a": held(0.0)}, 1, NOW)
        assert done.grants == {"a": Grant(1), "b": Grant(0, Share.WAITS_FOR_ROOM, ("a",))}

    def test_a_pool_that_crashes_does_not_keep_the_room_from_others(self) -> None:
        done = allocate([pool("a", 1, held_back=True), pool("b", 1)], {"a": Tenure(waits_since=0.0)}, 1, NOW)
        assert workers(done) == {"a": 0, "b": 1}


class TestTurns:
    def test_within_its_stay_a_pool_keeps_its_worker(self) -> None:
        done = allocate([pool("a", 1, 1), pool("b", 1)], {"a": held(NOW - STAY + 1)}, 1, NOW)
        assert done.grants == {"a": Grant(1), "b": Grant(0, Share.WAITS_FOR_ROOM, ("a",))}

    def test_after_it_the_one_that_waited_longest_is_next(self) -> None:
        tenures = {"a": held(NOW - STAY), "b": Tenure(waits_since=NOW - 5), "c": Tenure(waits_since=NOW - 9)}
        assert workers(allocate([pool("a", 1, 1), pool("b"), pool("c")], tenures, 1, NOW)) == {"a": 0, "b": 0, "c": 1}

    def test_with_nobody_waiting_it_stays_for_longer(self) -> None:
        assert workers(allocate([pool("a", 2, 2)], {"a": held(0.0, 2)}, 2, NOW)) == {"a": 2}

    def test_while_a_worker_starts_its_stay_has_not_begun(self) -> None:
        done = allocate([pool("a", 1, 1, starting=1), pool("b", 1)], {"a": Tenure(since=NOW - 900)}, 1, NOW)
        assert workers(done) == {"a": 1, "b": 0}
        later = allocate([pool("a", 1, 1), pool("b", 1)], done.tenures, 1, NOW + 60)
        assert (workers(later), later.tenures["a"].since) == ({"a": 1, "b": 0}, NOW + 60)

    def test_nobody_slips_in_before_one_that_needs_more_room(self) -> None:
        pools = [pool("small", 1, 1), pool("big", 1, units=2), pool("late", 1)]
        tenures = {"small": held(NOW - 1), "big": Tenure(waits_since=NOW - 9), "late": Tenure(waits_since=NOW - 2)}
        assert workers(allocate(pools, tenures, 2, NOW)) == {"small": 1, "big": 0, "late": 0}
        assert workers(allocate(pools, tenures, 2, NOW + STAY)) == {"small": 0, "big": 1, "late": 0}

    def test_a_stay_is_long_beside_a_swap(self) -> None:
        assert [stay_seconds(30, swap) for swap in (1.0, 60.0)] == [30.0, 240.0]


class TestMoreThanOne:
    def test_the_rest_goes_to_whoever_has_least_of_what_he_wants(self) -> None:
        assert workers(allocate([pool("a", 6), pool("b", 2)], {}, 4, NOW)) == {"a": 3, "b": 1}

    def test_a_new_need_takes_one_worker_of_many_at_once(self) -> None:
        done = allocate([pool("a", 4, 4), pool("b", 2)], {"a": held(NOW - 1, 4)}, 4, NOW)
        assert workers(done) == {"a": 3, "b": 1}
        assert done.grants["a"].share is Share.GAVE_WAY

    def test_what_came_a_moment_ago_stays_however_the_need_moves(self) -> None:
        done = allocate([pool("a", 4, 3), pool("b", 4, 1)], {"a": held(NOW - 1, 3), "b": held(NOW - 1)}, 4, NOW)
        assert workers(done) == {"a": 3, "b": 1}


@dataclass
class Machine:
    """Workers that take their time to start and to drain, and a fleet that starts none where there is no room."""

    names: list[str]
    units: dict[str, int]
    room: int
    start_seconds: float
    drain_seconds: float
    at: float = 0.0
    starting: dict[str, list[float]] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    draining: list[tuple[float, str]] = field(default_factory=list)
    tenures: dict[str, Tenure] = field(default_factory=dict)

    def tick(self, wanted: dict[str, int]) -> None:
        self.at += 1.0
        for name in self.names:
            come = [t for t in self.starting.get(name, []) if t <= self.at]
            self.running[name] += len(come)
            self.starting[name] = [t for t in self.starting.get(name, []) if t > self.at]
        self.draining = [(t, name) for t, name in self.draining if t > self.at]
        pools = [self._claimant(name, wanted[name]) for name in self.names]
        done = allocate(pools, self.tenures, self.room, self.at)
        self.tenures = dict(done.tenures)
        assert sum(done.grants[name].workers * self.units[name] for name in self.names) <= self.room
        for name in sorted(self.names, key=lambda n: done.grants[n].workers - self.present(n)):
            self._follow(name, done.grants[name].workers)

    def present(self, name: str) -> int:
        return self.running[name] + len(self.starting.get(name, []))

    def _claimant(self, name: str, wanted: int) -> Claimant:
        return Claimant(
            name, wanted, self.present(name), len(self.starting.get(name, [])), self.units[name], 0, wanted > 0,
            stay_seconds=stay_seconds(STAY, self.start_seconds),
        )  # fmt: skip

    def _follow(self, name: str, granted: int) -> None:
        while self.present(name) > granted:
            if self.starting.get(name):
                self.starting[name].pop()
            else:
                self.running[name] -= 1
            self.draining.append((self.at + self.drain_seconds, name))
        while self.present(name) < granted and self.free() >= self.units[name]:
            self.starting.setdefault(name, []).append(self.at + self.start_seconds)

    def free(self) -> int:
        taken = sum(self.present(name) * self.units[name] for name in self.names)
        return self.room - taken - sum(self.units[name] for _, name in self.draining)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_pool_with_need_gets_its_turn_within_the_bound(data: st.DataObject) -> None:
    """At most all others are before it, each for a stay, a start and a drain."""
    names = [f"m{i}" for i in range(data.draw(st.integers(2, 5), label="models"))]
    units = {name: data.draw(st.integers(1, 2), label="units") for name in names}
    room = data.draw(st.integers(max(units.values()), 4), label="room")
    start, drain = data.draw(st.integers(1, 20), label="start"), data.draw(st.integers(0, 5), label="drain")
    machine = Machine(names, units, room, start, drain)
    stay = stay_seconds(STAY, start)
    # A drain and a start of its own come after theirs; a round is a second, and each step takes at most two of them.
    bound = (len(names) - 1) * (stay + start + drain + 4) + start + drain + 4
    waits = dict.fromkeys(names, 0)
    rounds = data.draw(st.lists(st.fixed_dictionaries({n: st.integers(0, 3) for n in names}), min_size=2, max_size=8))
    for wanted in rounds:
        for _ in range(100):
            machine.tick(wanted)
            for name in names:
                waits[name] = waits[name] + 1 if wanted[name] and not machine.running[name] else 0
                assert waits[name] <= bound, (name, waits, machine)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 4), st.integers(1, 15))
def test_swaps_take_at_most_a_fifth_of_the_time(models: int, start: int) -> None:
    names = [f"m{i}" for i in range(models)]
    machine = Machine(names, dict.fromkeys(names, 1), 1, start, 0)
    serving = 0
    for _ in range(2000):
        machine.tick(dict.fromkeys(names, 1))
        serving += sum(machine.running.values())
    assert serving >= 2000 * 0.8 * 0.97
