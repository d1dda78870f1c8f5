"""The server, the API, the dispatcher and the scaler, as children of this process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from http.client import HTTPException

from promptq.contract.environment import is_set
from promptq.contract.errors import RedisUnavailable
from promptq.contract.redis_url import mask
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from promptq.queue.server_check import examine
from promptq.queue.store import connect
from promptq.runtime.parent_death import KillingStop, bound_to_parent
from promptq.runtime.programs import command, environment
from promptq.up.checks import UpSettings
from promptq.up.console import banner, say
from promptq.up.programs import Program
from promptq.up.queue_server import make_server

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 3.0
API_END_SECONDS = 25.0
DISPATCHER_END_SECONDS = 15.0
SCALER_MARGIN_SECONDS = 15.0
SERVER = "the queue's server"
KILLS = {"api": signal.SIGKILL, "dispatcher": signal.SIGKILL, "scaler": signal.SIGQUIT, SERVER: signal.SIGTERM}
"""What ends a program at once: the scaler kills its workers (in groups of their own), the server writes first."""


class Stack:
    """The whole service on this machine."""

    def __init__(self, settings: UpSettings) -> None:
        self.settings = settings
        self.stop = KillingStop(self.kill)
        self.server: EmbeddedServer | None = None
        self.redis_url = settings.api.redis_url
        self.programs: dict[str, Program] = {}

    def up(self) -> None:
        """Start everything, say when it is ready, and keep it up until a stop is requested.

        Raises:
            PromptqError: the server does not start or answer.
            CannotStart: a program dies whenever it is started.
        """
        self._start_server()
        say(f"starting the API on {self.settings.api_url} and the scaler ...")
        for name in ("api", "scaler", "dispatcher"):
            self.programs[name] = Program(name, lambda name=name: self._launch(name), time.monotonic())  # type: ignore[misc]
        if self._await_ready():
            say(banner(self.settings, self.redis_url))
            if self.settings.worker.engine == "echo":
                say("PROMPTQ_ENGINE=echo: every answer is the prompt's own words; no model is loaded.")
        while not self.stop.wait(POLL_SECONDS):
            self._supervise()

    def down(self) -> None:
        """The API first, then the dispatcher, the scaler with its workers, the server last."""
        if "dispatcher" in self.programs:  # the last one that is started
            self._drain()
        if self.server:
            self.server.stop()
        say("stopped.")

    def read_models(self) -> None:
        """Have the programs read the catalogue again. Safe in a signal handler."""
        for name, program in self.programs.items():
            if name != SERVER:
                with contextlib.suppress(ProcessLookupError):
                    program.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End everything at once. Runs in a signal handler, so it waits for nobody."""
        for name, program in self.programs.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.process.pid, KILLS[name])

    def _start_server(self) -> None:
        if is_set("redis_url"):
            say(f"using the server at {mask(self.redis_url)}")
            with connect(self.redis_url) as client:
                for text in examine(client, self.settings.api.keys):
                    say(text)
            return
        folder = self.settings.api.data_dir / "valkey"
        say(f"starting the queue's server in {folder} ...")
        self.server = server = make_server(folder, self.settings.api.durability)
        self.redis_url = server.start().url
        self.programs[SERVER] = Program(SERVER, server.launch, time.monotonic(), server.process)

    def _launch(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            bound_to_parent(command(name), signal.SIGTERM),
            env=environment(("PROMETHEUS_MULTIPROC_DIR",), PROMPTQ_REDIS_URL=self.redis_url),
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def _supervise(self) -> None:
        for program in self.programs.values():
            program.supervise(time.monotonic())

    def _await_ready(self) -> bool:
        """Tell how it goes until a worker stands ready. False: a stop was requested."""
        observer = Observer(connect(self.redis_url), self.settings.api)
        started = time.monotonic()
        told_at, told = started, ""
        while not self.stop.wait(POLL_SECONDS):
            self._supervise()
            lacking = self._lacking(observer)
            if not lacking:
                return True
            if lacking != told or time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at, told = time.monotonic(), lacking
                say(f"{lacking} ({told_at - started:.0f} s)")
        return False

    def _lacking(self, observer: Observer) -> str:
        """What is still missing, or an empty string."""
        if not _answers(self.settings.api_url):
            return "waiting for the API to answer"
        try:
            fleet, workers = observer.fleet(), observer.workers()
        except RedisUnavailable:
            return "waiting for the queue's server"
        if fleet is None:
            return "waiting for the scaler"
        if workers or not fleet.min_workers:
            return ""
        if fleet.trouble:
            return f"no worker yet: {fleet.trouble}"
        return f"{', '.join(fleet.starting) or 'the first worker'} is loading {self.settings.worker.default_model}"

    def _drain(self) -> None:
        say("stopping: the API takes no more jobs ...")
        self._end("api", API_END_SECONDS)
        self._end("dispatcher", DISPATCHER_END_SECONDS)
        drain = self.settings.scaler.drain_seconds
        say(f"draining the workers, at most {drain:g} s (a second Ctrl-C kills them) ...")
        self._end("scaler", drain + SCALER_MARGIN_SECONDS)
        if self.programs["scaler"].has_died or self.programs["scaler"].process.returncode:
            self._outlive_orphans()

    def _end(self, name: str, seconds: float) -> None:
        process = self.programs[name].process
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"{name} did not end within {seconds:g} s and is killed.")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _outlive_orphans(self) -> None:
        """A scaler died: its workers got a signal from the kernel and drain; they need the server until they end."""
        observer = Observer(connect(self.redis_url), self.settings.api)
        deadline = time.monotonic() + self.settings.scaler.drain_seconds + SCALER_MARGIN_SECONDS
        with contextlib.suppress(RedisUnavailable):
            while time.monotonic() < deadline and any(w.host == socket.gethostname() for w in observer.workers()):
                time.sleep(POLL_SECONDS)


def _answers(api_url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # an http_proxy is not for loopback
    with contextlib.suppress(OSError, HTTPException), direct.open(f"{api_url}/livez", timeout=1):
        return True
    return False
