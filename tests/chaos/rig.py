"""The service of one scenario: a Redis of its own, and programs that are started again when they die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from promptq.contract.environment import PREFIX, child_environment
from promptq.contract.errors import RedisUnavailable
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore, connect
from promptq.storage.storage import Storage
from tests.chaos.witness import FOLDER
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.05
END_SECONDS = 30.0
WORDS_PER_SECOND = 20
CHECKPOINT_SECONDS = 0.5
SETTINGS = {
    "engine": "echo", "echo_tokens_per_second": WORDS_PER_SECOND, "checkpoint_seconds": CHECKPOINT_SECONDS, "slots": 4,
    "lease_seconds": 10, "dispatcher_port": 0, "api_processes": 1, "tick_seconds": 0.1, "webhook_allow_private": True,
    "min_workers": 1, "max_workers": 1,
}  # fmt: skip


@dataclass
class Program:
    """One program, and its present process.

    Attributes:
        failpoints: of its first process alone, or it would die for ever.
        starts: how often it was started.
    """

    name: str
    module: str
    settings: dict[str, Any]
    failpoints: str
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def worker_name(self) -> str:
        """Of its present process: a name is used once."""
        return f"{self.name}-{self.starts}"


class Rig:
    """Starts, watches and ends programs.

    Attributes:
        crashes: by program, how often one ended that nobody had told to.
        store: of the deployment, as the harness uses it.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = {**SETTINGS, "data_dir": folder / "data", "scaler_port": free_port(), **settings}
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.crashes: dict[str, int] = {}
        self.server = EmbeddedServer(folder / "valkey").start()
        own = {name: self.settings[name] for name in self.settings if name in WorkerSettings.model_fields}
        self.store = JobStore(connect(self.server.url), WorkerSettings(_env_file=None, **own))
        self.storage = Storage(f"file://{(folder / 'data/files').resolve()}")
        self.witness_folder = folder / "witness"
        self.witness_folder.mkdir()
        self.data_dir: Path = self.settings["data_dir"]
        self.data_dir.mkdir()
        self._programs: dict[str, Program] = {}
        self._log_path = folder / "programs.log"
        self._log = self._log_path.open("ab")
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._supervisor.start()

    def start(self, name: str, module: str, failpoints: str = "", **settings: Any) -> Program:
        """Start a program; it is started again, without failpoints, whenever it dies."""
        program = Program(name, module, settings, failpoints)
        self._launch(program)
        self._programs[name] = program
        return program

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program's present process."""
        process = self._programs[name].process
        assert process
        process.send_signal(number)

    def serves(self) -> bool:
        """Whether the API answers."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/livez", timeout=5).ok
        return False

    def retire(self, name: str) -> float:
        """SIGTERM to a program, which is not started again; gives the seconds until it had ended."""
        program, began = self._programs.pop(name), time.monotonic()
        assert program.process
        program.process.terminate()
        program.process.wait(END_SECONDS)
        return time.monotonic() - began

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Whether it became true in time; a Redis that is away is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(RedisUnavailable):
                if condition():
                    return True
            time.sleep(LOOK_SECONDS)
        return False

    def note_crash(self, name: str) -> None:
        """A program ended that nobody had told to, or a process of it."""
        self.crashes[name] = self.crashes.get(name, 0) + 1

    def sprung(self) -> set[str]:
        """The failpoints at which a process has failed."""
        return set(re.findall(r"Failpoint ([a-z_.]+): ", self._log_path.read_text(errors="replace")))

    def stop(self) -> bool:
        """End all programs in order. Whether all of them did, in time."""
        self._closing.set()
        self._supervisor.join()
        for program in self._programs.values():
            program.process.terminate()
        return all(list(map(_ended, (program.process for program in self._programs.values()))))

    def close(self) -> None:
        """End everything."""
        self._closing.set()
        self._supervisor.join()
        for program in self._programs.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()
        self.store.client.close()
        self.server.stop(kill=True)
        self._log.close()

    def _supervise(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            self._reap()
            for program in list(self._programs.values()):
                if program.process.poll() is not None and program.name in self._programs:
                    self.note_crash(program.name)
                    self._take_back(program)
                    program.failpoints = ""
                    self._launch(program)

    def _reap(self) -> None:
        """As the scaler does; beside one it does no harm."""
        with contextlib.suppress(RedisUnavailable):
            self.store.reap()

    def _take_back(self, program: Program) -> None:
        """As the scaler does, which has seen its worker's end."""
        if program.name.startswith("worker"):
            with contextlib.suppress(RedisUnavailable):
                self.store.take_back(program.worker_name)
                Observer(self.store.client, self.store.settings).forget_worker(program.worker_name)

    def _launch(self, program: Program) -> None:
        program.starts += 1
        own = {**self.settings, **program.settings, "worker_name": program.worker_name}
        values = {PREFIX + name.upper(): str(value) for name, value in own.items()}
        fixed = {
            "PROMPTQ_REDIS_URL": self.server.url, "PROMPTQ_API_PORT": str(self.api_port),
            "PROMPTQ_FAILPOINTS": program.failpoints, FOLDER: str(self.witness_folder), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        environment = child_environment(("PROMETHEUS_MULTIPROC_DIR",), **values | fixed)
        program.process = subprocess.Popen(
            [sys.executable, "-m", program.module], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log, process_group=0,
        )  # fmt: skip


def _ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(END_SECONDS) is not None
    return False


@contextmanager
def rigged(folder: Path, **settings: Any) -> Iterator[Rig]:
    """A rig that is taken down in the end."""
    rig = Rig(folder, **settings)
    try:
        yield rig
    finally:
        rig.close()
