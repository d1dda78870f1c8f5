"""The fleet with real processes that stand in for workers: they crash, hang, drain or ignore the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from promptq.contract.environment import child_environment
from scaler.backoff import STABLE_SECONDS
from scaler.fleets.base import Exit, Start
from scaler.fleets.gpus import Gpu, Gpus
from scaler.fleets.local import UNRESPONSIVE_SECONDS, LocalFleet, LocalFleetSettings
from tests.memory_fleet import POOL
from tests.processes import ROOT, wait_until

PATIENT = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
WAITS = PATIENT + "print('up', file=sys.stderr, flush=True)\nwhile True: time.sleep(1)"
IGNORES = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', file=sys.stderr, flush=True)\nwhile True: time.sleep(1)"
)
CRASHES = "import sys\nprint('loading', file=sys.stderr)\nsys.exit('the disk is on fire')"
Make = Callable[..., LocalFleet]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[LocalFleet] = []

    def fleet(script: str, most: int = 4, gpus: Gpus | None = None, **fields: float) -> LocalFleet:
        settings = LocalFleetSettings(most, child_environment(), command=(sys.executable, "-c", script), **fields)
        made.append(LocalFleet(settings, gpus))
        return made[-1]

    yield fleet
    for each in made:
        each.kill()
        wait_until(lambda each=each: each.poll(0.0) is not None and not each.roster())


def exits(fleet: LocalFleet, now: float, count: int = 1) -> list[Exit]:
    found: list[Exit] = []
    wait_until(lambda: found.extend(fleet.poll(now)) or len(found) >= count, what=f"{count} exits")
    return found


def up(fleet: LocalFleet, capfd: pytest.CaptureFixture[str], count: int = 1) -> None:
    """The stand-ins have their signal handlers."""
    seen: list[str] = []
    wait_until(lambda: seen.append(capfd.readouterr().err) or "".join(seen).count("up") >= count)


def register(fleet: LocalFleet, now: float, state: str = "idle", finished: int = 0) -> list[Start]:
    return fleet.observe([replace(w, state=state, jobs_finished=finished) for w in fleet.roster()], now)


def test_a_crash_loop_backs_off_and_says_why(make: Make) -> None:
    fleet, now = make(CRASHES), 100.0
    waits: list[float] = []
    for _ in range(4):
        assert fleet.spawn(3, POOL, now) == (1 if waits else 3)
        ends = exits(fleet, now, 1 if waits else 3)
        assert {end.reason for end in ends} == {"crashed"}
        waits.append(fleet.retry_in(POOL, now) or 0.0)
        assert fleet.spawn(3, POOL, now) == 0
        now += waits[-1]
    assert waits == [1, 2, 4, 8]
    assert fleet.trouble(POOL) == f"{ends[-1].name} exited with code 1 (crashed): the disk is on fire"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, "exited"),
        (1, "crashed"),
        (2, "settings"),
        (3, "redis_unavailable"),
        (4, "engine"),
        (5, "engine_broken"),
        (6, "replaced"),
    ],
)
def test_the_exit_code_names_the_reason(make: Make, code: int, reason: str) -> None:
    fleet = make(f"import sys; sys.exit({code})")
    fleet.spawn(1, POOL, 0.0)
    assert [end.reason for end in exits(fleet, 0.0)] == [reason]
    assert fleet.backs_off(POOL)


def test_a_registered_worker_clears_the_trouble_and_a_stable_one_the_back_off(make: Make, tmp_path: Path) -> None:
    script = f"import pathlib, sys\nif not pathlib.Path({str(tmp_path / 'ok')!r}).exists(): sys.exit(1)\n{WAITS}"
    fleet = make(script)
    fleet.spawn(1, POOL, 0.0)
    exits(fleet, 0.0)
    (tmp_path / "ok").touch()
    assert fleet.spawn(1, POOL, 1.0) == 1
    assert register(fleet, 3.5) == [Start(POOL, 2.5)]
    assert (fleet.trouble(POOL), fleet.backs_off(POOL)) == ("", True)
    register(fleet, 3.5 + STABLE_SECONDS)
    assert not fleet.backs_off(POOL)
    assert fleet.spawn(2, POOL, 50.0) == 2


def test_a_worker_whose_engine_broke_is_backed_off_and_said_however_long_it_had_worked(
    make: Make, tmp_path: Path
) -> None:
    """The next one gets its device."""
    broken = tmp_path / "broken"
    fleet = make(
        f"import pathlib, sys, time\nwhile not pathlib.Path({str(broken)!r}).exists(): time.sleep(0.01)\nsys.exit(5)"
    )
    fleet.spawn(1, POOL, 0.0)
    register(fleet, 1.0, finished=7)
    broken.touch()
    exits(fleet, STABLE_SECONDS + 2.0)
    assert fleet.backs_off(POOL)
    assert "engine_broken" in fleet.trouble(POOL)
    broken.unlink()
    assert fleet.spawn(1, POOL, STABLE_SECONDS + 4.0) == 1
    register(fleet, STABLE_SECONDS + 5.0)
    assert "engine_broken" in fleet.trouble(POOL)
    register(fleet, STABLE_SECONDS + 6.0, finished=1)
    assert (fleet.trouble(POOL), fleet.backs_off(POOL)) == ("", False)


def test_a_stable_worker_that_is_killed_is_replaced_at_once(make: Make) -> None:
    fleet = make(WAITS)
    fleet.spawn(1, POOL, 0.0)
    register(fleet, 1.0)
    os.kill(fleet.roster()[0].pid, signal.SIGKILL)
    assert [end.reason for end in exits(fleet, 1.0 + STABLE_SECONDS)] == ["killed"]
    assert fleet.spawn(1, POOL, 1.0 + STABLE_SECONDS) == 1


def test_a_worker_that_has_done_work_is_replaced_at_once_however_young(make: Make) -> None:
    fleet = make(WAITS)
    for now in (0.0, 2.0, 4.0):
        assert fleet.spawn(1, POOL, now) == 1
        register(fleet, now + 0.5, finished=1)
        os.kill(fleet.roster()[0].pid, signal.SIGKILL)
        assert [end.reason for end in exits(fleet, now + 1.0)] == ["killed"]
        assert (fleet.backs_off(POOL), fleet.trouble(POOL)) == (False, "")


def test_one_that_did_no_work_yet_counts_as_a_crash_until_one_has(make: Make) -> None:
    fleet = make(WAITS)
    fleet.spawn(1, POOL, 0.0)
    register(fleet, 0.5)
    os.kill(fleet.roster()[0].pid, signal.SIGKILL)
    exits(fleet, 1.0)
    assert fleet.backs_off(POOL)
    fleet.spawn(1, POOL, 2.0)
    register(fleet, 2.5)
    assert fleet.backs_off(POOL)
    register(fleet, 3.0, finished=1)
    assert not fleet.backs_off(POOL)


def test_a_retired_worker_drains(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fleet = make(WAITS)
    fleet.spawn(2, POOL, 0.0)
    up(fleet, capfd, 2)
    register(fleet, 1.0)
    first = fleet.roster()[0].name
    fleet.retire([first], 2.0)
    assert sorted(worker.state for worker in fleet.roster()) == ["draining", "idle"]
    assert [(end.name, end.reason, end.code) for end in exits(fleet, 2.0)] == [(first, "retired", 0)]
    assert len(fleet.roster()) == 1
    assert not fleet.backs_off(POOL)


def test_a_worker_retired_before_it_could_hear_is_no_crash(make: Make) -> None:
    fleet = make("import time; time.sleep(60)")
    fleet.spawn(1, POOL, 0.0)
    fleet.retire_all(0.0)
    assert [end.reason for end in exits(fleet, 0.0)] == ["retired"]


def test_a_second_retirement_sends_no_second_signal(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    counts = (
        "import signal, sys, time\nseen = []\nsignal.signal(signal.SIGTERM, lambda *_: seen.append(1))\n"
        "print('up', file=sys.stderr, flush=True)\n"
        "while not seen: time.sleep(.01)\ntime.sleep(.5)\nsys.exit(len(seen) - 1)"
    )
    fleet = make(counts)
    fleet.spawn(1, POOL, 0.0)
    up(fleet, capfd)
    fleet.retire_all(0.0)
    time.sleep(0.1)
    fleet.retire_all(1.0)
    assert [end.code for end in exits(fleet, 1.0)] == [0]


def test_a_worker_that_will_not_end_is_killed_after_its_time(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fleet = make(IGNORES, drain_seconds=30)
    fleet.spawn(1, POOL, 0.0)
    up(fleet, capfd)
    fleet.retire_all(10.0)
    assert fleet.poll(44.9) == []
    assert [(end.reason, end.code) for end in exits(fleet, 45.0)] == [("drain_timeout", -9)]


def test_a_worker_that_never_registers_is_killed(make: Make) -> None:
    fleet = make(WAITS, start_timeout_seconds=60)
    fleet.spawn(1, POOL, 0.0)
    fleet.observe([], 59.9)
    assert fleet.poll(59.9) == []
    fleet.observe([], 60.0)
    assert [end.reason for end in exits(fleet, 60.0)] == ["start_timeout"]
    assert "start_timeout" in fleet.trouble(POOL)


def test_time_without_redis_counts_against_no_worker(make: Make) -> None:
    fleet = make(WAITS, start_timeout_seconds=60)
    fleet.spawn(1, POOL, 0.0)
    fleet.pause_clocks(1000.0)
    fleet.observe([], 1059.0)
    assert fleet.poll(1059.0) == []


def test_a_worker_that_went_silent_is_killed(make: Make) -> None:
    fleet = make(WAITS)
    fleet.spawn(1, POOL, 0.0)
    register(fleet, 1.0)
    fleet.observe([], 10.0)
    register(fleet, 20.0)
    fleet.observe([], 30.0)
    fleet.observe([], 30.0 + UNRESPONSIVE_SECONDS - 1)
    assert fleet.poll(60.0) == []
    fleet.observe([], 30.0 + UNRESPONSIVE_SECONDS)
    assert [end.reason for end in exits(fleet, 61.0)] == ["unresponsive"]


def test_draining_workers_leave_no_room_for_new_ones(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fleet = make(IGNORES, most=2)
    assert fleet.spawn(5, POOL, 0.0) == 2
    up(fleet, capfd, 2)
    register(fleet, 1.0)
    fleet.retire([fleet.roster()[0].name], 2.0)
    assert fleet.spawn(1, POOL, 2.0) == 0
    assert not fleet.backs_off(POOL)


def test_each_worker_gets_a_name_and_a_gpu_of_its_own(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    class TwoGpus(Gpus):
        def read(self) -> list[Gpu]:
            return [Gpu(0, "GPU-a", 0, 9, 10), Gpu(1, "GPU-b", 0, 1, 10)]

    tells = (
        "import os, sys\n"
        "print(os.environ['PROMPTQ_WORKER_NAME'], os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr, flush=True)"
    )
    fleet = make(tells, gpus=TwoGpus(""))
    fleet.spawn(2, POOL, 0.0)
    names, gpus = zip(*((end.name, end.words.split()) for end in exits(fleet, 0.0, 2)), strict=True)
    assert {words[0] for words in gpus} == set(names)
    assert {words[1] for words in gpus} == {"GPU-a", "GPU-b"}
    passed_on = capfd.readouterr().err
    assert all(name in passed_on for name in names)


def test_killing_ends_what_a_worker_started_too(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fleet = make(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WAITS!r}])")
    fleet.spawn(1, POOL, 0.0)
    up(fleet, capfd)
    tree = [psutil.Process(worker.pid) for worker in fleet.roster()]
    tree += tree[0].children(recursive=True)
    assert len(tree) == 2
    fleet.kill()
    exits(fleet, 0.0)
    assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_no_worker_outlives_a_killed_scaler() -> None:
    parent = (
        "import sys, time\nfrom promptq.contract.environment import child_environment\n"
        "from scaler.fleets.local import LocalFleet, LocalFleetSettings\n"
        f"fleet = LocalFleet(LocalFleetSettings(2, child_environment(), command=(sys.executable, '-c', {WAITS!r})))\n"
        "fleet.spawn(2, 'model', 0.0)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stderr=subprocess.PIPE, process_group=0)
    assert process.stderr is not None
    with process.stderr:
        assert [process.stderr.readline() for _ in range(2)] == [b"up\n", b"up\n"]
        children = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        assert len(children) == 2
        assert psutil.wait_procs(children, timeout=10)[1] == []
