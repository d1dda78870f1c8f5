"""The spare as a process by itself: how it waits, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scaler.fleets.local import SPARE_COMMAND
from tests.integration.spares import environment
from tests.processes import ROOT, wait_until


def waits(pid: int) -> None:
    """The spare is past its own first imports: it handles SIGTERM."""

    def catches() -> bool:
        caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    wait_until(catches, what="the spare to handle its signals")


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        SPARE_COMMAND, cwd=ROOT, env=environment(engine="echo"), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        waits(process.pid)
        yield process
        process.kill()


def quiet_end(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_spare_quietly(waiting: subprocess.Popen[bytes], number: int) -> None:
    waiting.send_signal(number)
    quiet_end(waiting)


@pytest.mark.parametrize("begun", [b"", b'{"environment": {"PROMPTQ_WORKER_NAME": "w'])
def test_the_end_of_its_stdin_ends_it_quietly(waiting: subprocess.Popen[bytes], begun: bytes) -> None:
    """Also in the middle of a line: the scaler died while it wrote."""
    assert waiting.stdin is not None
    waiting.stdin.write(begun)
    waiting.stdin.close()
    quiet_end(waiting)


def test_a_line_that_is_no_assignment_ends_it_with_one_that_says_so(waiting: subprocess.Popen[bytes]) -> None:
    _, said = waiting.communicate(b"hello\n", timeout=30)
    assert waiting.returncode == 2
    assert said.startswith(b"gpu_worker: no assignment on stdin: line: Invalid JSON")
    assert said.count(b"\n") == 1


def test_no_spare_outlives_a_killed_scaler() -> None:
    parent = (
        "import sys, time\nfrom promptq.runtime.programs import environment as make\n"
        "from scaler.fleets.local import LocalFleet, LocalFleetSettings, SPARE_COMMAND\n"
        "environment = make(PROMPTQ_ENGINE='echo')\n"
        "fleet = LocalFleet(LocalFleetSettings(2, environment, spare_command=SPARE_COMMAND))\n"
        "fleet.prepare(0, 0.0)\nprint(fleet._warm_spare.spare.process.pid, flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, process_group=0)
    with process:
        assert process.stdout is not None
        spare = psutil.Process(int(process.stdout.readline()))
        waits(spare.pid)
        process.kill()
        assert psutil.wait_procs([spare], timeout=10)[1] == []
