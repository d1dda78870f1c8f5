"""`promptq up`, which `make up` runs: everything with the echo engine, from an empty folder to the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from promptq.contract.environment import PREFIX, child_environment
from promptq.contract.exit_codes import ExitCode
from tests.processes import ROOT, free_port, wait_until


def _heed_hangups() -> None:
    """What runs the tests may ignore them, as nohup does, and its children would too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Up:
    """One run of it in a folder of its own, with what it printed."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.ports = {"api_port": free_port(), "scaler_port": free_port(), "dispatcher_port": free_port()}
        values = {"engine": "echo", "api_processes": 1, "echo_tokens_per_second": 20, **self.ports, **settings}
        environment = child_environment(
            PYTHONPATH=str(ROOT), **{PREFIX + name.upper(): str(value) for name, value in values.items()}
        )
        self.log = folder / f"out-{len(list(folder.glob('out-*')))}"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "promptq", "up"], cwd=folder, env=environment, stdout=out, stderr=out,
                preexec_fn=_heed_hangups,
            )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    @property
    def output(self) -> str:
        return self.log.read_text()

    def said(self) -> list[str]:
        """What it says itself, without its children's logs."""
        return [line for line in self.output.splitlines() if line.startswith("promptq: ")]

    def ready(self) -> Up:
        wait_until(lambda: "ready." in self.output or self.process.poll() is not None, 60, self.output)
        assert self.process.poll() is None, self.output
        return self.note()

    def note(self) -> Up:
        """Remember every process there is now."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            self.seen[child.pid] = child
        return self

    def program(self, name: str) -> psutil.Process:
        self.note()
        return next(p for p in self.seen.values() if name in _command_of(p))

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        self.note()
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(seconds)

    def left(self, seconds: float = 5) -> list[psutil.Process]:
        return psutil.wait_procs(list(self.seen.values()), timeout=seconds)[1]

    def api(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['api_port']}{path}", data, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())


Start = Callable[..., Up]


def _command_of(process: psutil.Process) -> str:
    """Empty for one that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
        return " ".join(process.cmdline())
    return ""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Up] = []

    def up(**settings: Any) -> Up:
        runs.append(Up(tmp_path, **settings))
        return runs[-1]

    yield up
    for run in runs:
        if run.process.poll() is None:
            run.note()
            run.process.kill()
            run.process.wait()
        for process in run.left(0):
            process.kill()


def test_up_serves_and_goes_without_a_trace(start: Start, tmp_path: Path) -> None:
    up = start().ready()
    call = next(line for line in up.output.splitlines() if "curl -s" in line)
    assert f"localhost:{up.ports['api_port']}" in call or f"127.0.0.1:{up.ports['api_port']}" in call
    answer = subprocess.run(shlex.split(call), capture_output=True, timeout=60, check=True).stdout
    assert json.loads(answer)["output"]["text"] == "What is the capital of France?"
    assert len(up.api("/v1/workers")["workers"]) == 1
    assert up.end() == ExitCode.OK
    assert up.left() == []
    assert len(up.seen) >= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [".promptq", "out-0"]
    order = [up.output.index(words) for words in ("Shutting down", "has ended (retired)", "promptq: stopped.")]
    assert order == sorted(order)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_progress_is_told_and_the_terminals_signal_reaches_only_the_top(start: Start, number: int) -> None:
    up = start().ready()
    assert len(up.said()) >= 4
    groups = {os.getpgid(process.pid) for process in up.seen.values()}
    assert os.getpgid(up.process.pid) not in groups
    assert up.end(number) == ExitCode.OK
    assert up.left() == []


def test_a_second_start_finds_queue_and_results(start: Start) -> None:
    first = start(echo_tokens_per_second=1, slots=1, drain_seconds=0.5).ready()
    done = first.api("/v1/jobs", {"prompt": "word"})["id"]
    wait_until(lambda: first.api(f"/v1/jobs/{done}")["status"] == "succeeded")
    waiting = [first.api("/v1/jobs", {"prompt": f"{i} b c"})["id"] for i in range(3)]
    port = re.search(r"redis://127.0.0.1:(\d+)", first.output)
    assert first.end() == ExitCode.OK
    second = start(echo_tokens_per_second=0).ready()
    assert second.api(f"/v1/jobs/{done}")["output"]["text"] == "word"
    for job in waiting:
        wait_until(lambda job=job: second.api(f"/v1/jobs/{job}")["status"] == "succeeded")
    assert port is not None
    assert port[0] in second.output
    assert second.end() == ExitCode.OK


def test_a_second_signal_kills_everything_at_once(start: Start) -> None:
    up = start(echo_tokens_per_second=0.01).ready()
    up.api("/v1/jobs", {"prompt": "never ends"})
    wait_until(lambda: up.api("/v1/queues")["queues"][1]["running"] == 1)
    up.note().process.terminate()
    wait_until(lambda: "draining the workers" in up.output)
    assert up.process.poll() is None
    assert up.end(seconds=5) == ExitCode.KILLED
    assert up.left() == []


def test_a_stop_before_it_is_ready_is_orderly_too(start: Start) -> None:
    up = start()
    wait_until(lambda: "starting the API" in up.output)
    assert up.end() == ExitCode.OK
    assert up.left() == []


@pytest.mark.parametrize(
    ("name", "called"), [("-m scaler", "scaler"), ("gunicorn", "api"), ("valkey", "the queue's server")]
)
def test_what_dies_is_started_again_and_every_job_ends(start: Start, name: str, called: str) -> None:
    up = start(lease_seconds=2, drain_seconds=2).ready()
    jobs = [up.api("/v1/jobs", {"prompt": f"{number} a b c"})["id"] for number in range(8)]
    victim = up.program(name)
    victim.kill()
    wait_until(lambda: any(f"{called} has ended by signal 9" in line for line in up.said()))
    for job in jobs:
        wait_until(lambda job=job: status_of(up, job) == "succeeded", 60, f"the end of {job}")
    wait_until(lambda: up.program(name).pid != victim.pid)
    assert up.process.poll() is None
    assert up.end() == ExitCode.OK
    assert up.left() == []


def test_a_stop_while_something_waits_to_be_started_again_is_orderly(start: Start) -> None:
    up = start(drain_seconds=1).ready()
    up.program("-m scaler").kill()
    wait_until(lambda: any("scaler has ended" in line for line in up.said()))
    assert up.end() == ExitCode.OK
    assert up.left() == []


def test_what_cannot_be_started_ends_the_service_with_the_reason(start: Start, tmp_path: Path) -> None:
    """The file of keys is read by the API alone, and goes wrong while it runs."""
    keys = tmp_path / "keys"
    keys.write_text(f"ann {'a' * 64}\n")
    up = start(api_keys_file=keys).ready()
    keys.write_text("no key at all\n")
    up.program("gunicorn").kill()
    assert up.wait() == ExitCode.SETTINGS
    assert any("api has ended with code 2: its settings are wrong" in line for line in up.said())
    assert up.left() == []


def status_of(up: Up, job: str) -> str:
    """The job's status, or an empty string while the API cannot say."""
    try:
        return str(up.api(f"/v1/jobs/{job}")["status"])
    except OSError:
        return ""


def test_after_a_kill_the_next_start_ends_the_server_that_was_left(start: Start) -> None:
    first = start(drain_seconds=1).ready()
    server = first.program("valkey")
    first.process.kill()
    first.process.wait()
    wait_until(lambda: all(process.pid == server.pid for process in first.left(0.1)))
    assert server.is_running()
    second = start().ready()
    assert psutil.wait_procs([server], timeout=5)[1] == []
    assert second.end() == ExitCode.OK


def one_line(up: Up, code: int, *words: str) -> None:
    assert up.wait(30) == code
    (line,) = up.output.splitlines()
    assert all(word in line for word in words), line


def test_a_taken_port_is_told_before_anything_starts(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one_line(start(api_port=port), ExitCode.SETTINGS, "PROMPTQ_API_PORT", str(port), "in use")
        one_line(start(scaler_port=port), ExitCode.SETTINGS, "PROMPTQ_SCALER_PORT", str(port), "in use")
    port = free_port()
    one_line(start(api_port=port, scaler_port=port), ExitCode.SETTINGS, "PROMPTQ_SCALER_PORT", "PROMPTQ_API_PORT")
    assert not (tmp_path / ".promptq" / "valkey").exists()


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./models/mine", "~/none-such-here", "models/mine/"])
def test_a_missing_model_folder_is_told(start: Start, model: str) -> None:
    one_line(start(engine="continuous", model=model), ExitCode.SETTINGS, "PROMPTQ_MODEL", model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slots": 0}, ["PROMPTQ_SLOTS", "greater than or equal to 1"]),
        ({"api_prot": 1}, ["PROMPTQ_API_PROT", "did you mean PROMPTQ_API_PORT?"]),
        ({"min_workers": 2, "max_workers": 1}, ["min_workers=2 is above max_workers=1"]),
        ({"data_dir": "/proc/nowhere"}, ["PROMPTQ_DATA_DIR", "cannot write"]),
    ],
)
def test_a_wrong_setting_is_told(start: Start, settings: dict[str, Any], words: list[str]) -> None:
    one_line(start(**settings), ExitCode.SETTINGS, *words)


def test_a_server_of_ones_own_that_does_not_answer_is_told(start: Start) -> None:
    up = start(redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert up.wait(30) == ExitCode.REDIS_UNAVAILABLE
    assert any("Redis does not answer" in line for line in up.said())
    assert "hunter2" not in up.output


def test_two_runs_cannot_share_a_data_folder(start: Start) -> None:
    first = start().ready()
    one_line(start(), ExitCode.SETTINGS, "PROMPTQ_DATA_DIR", "in use by another")
    assert first.end() == ExitCode.OK
