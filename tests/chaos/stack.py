"""The whole service as real processes: started, kept alive as a supervisor would, killed, paused."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import redis

from promptq.contract.environment import PREFIX, child_environment
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.chaos.plan import LEASE_SECONDS
from tests.clocks import Clock, can_shift_clocks
from tests.disks import can_mount, small_disk
from tests.processes import free_port
from tests.proxy import Proxy
from tests.warm import link_made

ROOT = Path(__file__).parents[2]
MARK = "PROMPTQCHAOS_RUN"
PROGRAMS = ("api", "scaler")
DISK_MIB = 256
SETTINGS = {
    "lease_seconds": LEASE_SECONDS, "tick_seconds": 0.2, "min_workers": 2, "max_workers": 3, "slots": 4,
    "echo_tokens_per_second": 50, "drain_seconds": 3, "max_queue_jobs": 120,
    "api_processes": 2, "redis_timeout_seconds": 1, "target_jobs_per_worker": 4, "log_level": "INFO",
}  # fmt: skip


class Stack:
    """Redis, the API and the scaler with its workers. The supervisor starts the API and the scaler again.

    Args:
        programs: what is started beside Redis; of several alike, all but the first have a dash and a number behind.

    Attributes:
        disk: where Redis and the programs have their files; None where nobody may mount one.
        proxy: between the programs and Redis.
        clocks: of the API's host, and of the scaler's and its workers'; empty without a compiler.
        evicted_at: steady seconds at which keys were taken last.
    """

    def __init__(
        self, folder: Path, durability: str = "everysec", programs: Sequence[str] = PROGRAMS, **settings: Any
    ) -> None:
        self.programs = programs
        self.folder = folder
        self.run = uuid.uuid4().hex
        self._held = contextlib.ExitStack()
        self.disk = self._held.enter_context(small_disk(folder / "disk", DISK_MIB)) if can_mount() else None
        data = self.disk.folder if self.disk else folder
        self.server = EmbeddedServer(data / "valkey", options=("--appendfsync", durability))
        self.proxy = Proxy(self.server.port)
        self.clocks = {name: Clock(folder, name) for name in PROGRAMS} if can_shift_clocks() else {}
        self.evicted_at = -math.inf
        self._data = data / "data"
        self.api_port, self.scaler_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = 0
        self._settings = {**SETTINGS, "engine": "echo", **settings}
        if self._settings["engine"] != "echo":
            link_made(self._data)  # the small disk has no room for a model
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._log = (folder / "programs.log").open("ab")

    @property
    def client(self) -> redis.Redis:
        """A client of its own for the caller."""
        return connect(self.server.url, 2.0)

    def up(self) -> None:
        """Start everything."""
        self.server.start()
        for name in self.programs:
            self._start(name)
        self._supervisor.start()

    def down(self) -> list[psutil.Process]:
        """Stop in order; what is still there afterwards should not be."""
        self._closing.set()
        self._supervisor.join()
        for name in self.programs:
            self.processes[name].terminate()
        for name in self.programs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.processes[name].wait(30)
        self.server.stop()
        _, left = psutil.wait_procs(list(self.descendants()), timeout=5)
        for process in left:
            process.kill()
        self._log.close()
        self.proxy.close()
        self._held.close()
        return left

    def descendants(self) -> Iterator[psutil.Process]:
        """Every process that this run started, directly or not."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.run and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def workers(self) -> dict[int, str]:
        """Live worker processes by pid, with their names."""
        found = {}
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-2:] == ["-m", "gpu_worker"] and "-c" not in process.cmdline():
                    found[process.pid] = process.environ()["PROMPTQ_WORKER_NAME"]
        return found

    def api_children(self) -> list[int]:
        """Gunicorn's worker processes."""
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self.processes["api"].pid).children()]
        return []

    def _supervise(self) -> None:
        while not self._closing.wait(0.2):
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    # While orphans of the old one hold the port a new API gives up at once, and is tried again.
                    self.restarts += 1
                    self._start(name)

    def _start(self, name: str) -> None:
        values = {PREFIX + key.upper(): str(value) for key, value in self._settings.items()}
        fixed = {
            "PROMPTQ_REDIS_URL": self.proxy.url, "PROMPTQ_API_PORT": str(self.api_port),
            "PROMPTQ_SCALER_PORT": str(self.scaler_port), "PROMPTQ_DISPATCHER_PORT": "0",
            "PROMPTQ_DATA_DIR": str(self._data), MARK: self.run,
        }  # fmt: skip
        fixed |= self.clocks[name].environment if name in self.clocks else {}
        environment = child_environment(("PROMETHEUS_MULTIPROC_DIR",), **values, **fixed)
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", name.partition("-")[0]], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log, process_group=0,
        )  # fmt: skip


def send(pid: int, number: signal.Signals) -> bool:
    """Whether the process was there to get the signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def pause(pid: int, seconds: float) -> bool:
    """SIGSTOP, and SIGCONT later, in the background."""
    if not send(pid, signal.SIGSTOP):
        return False
    timer = threading.Timer(seconds, send, (pid, signal.SIGCONT))
    timer.daemon = True
    timer.start()
    return True


def wall() -> float:
    """Wall time, as in the records."""
    return time.time()
