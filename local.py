"""`make up`: the whole service on this machine, in the foreground. Ctrl-C drains it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from promptq.contract.errors import PromptqError, RedisUnavailable, SettingsError
from promptq.contract.settings import ApiSettings, ScalerSettings, WorkerSettings, child_environment, is_set, mask_url
from promptq.queue.embedded import EmbeddedServer, ServerError, free_port
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore, connect
from promptq.runtime.lifecycle import ExitCode
from promptq.runtime.parent_death import KillingStop, bound_to_parent
from promptq.runtime.ports import listen

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 3.0
SERVER_END_SECONDS = 10.0
API_END_SECONDS = 25.0
SCALER_MARGIN_SECONDS = 15.0
QUESTION = '{"messages":[{"role":"user","content":"What is the capital of France?"}]}'


class Settings:
    """The settings of every program that this one starts. Raises SettingsError, with one line, for a wrong one."""

    def __init__(self) -> None:
        self.api = ApiSettings.load()
        self.scaler = ScalerSettings.load()
        self.worker = WorkerSettings.load()
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.api.api_host, self.api.api_host)
        self.api_url = f"http://{host}:{self.api.api_port}"

    def check(self) -> None:
        """Look for what would only fail later: a missing model folder, a port that is taken."""
        _check_model(self.worker)
        if self.api.api_port == self.scaler.scaler_port:
            raise SettingsError(f"PROMPTQ_SCALER_PORT: {self.api.api_port} is PROMPTQ_API_PORT too")
        listen("PROMPTQ_API_PORT", self.api.api_host, self.api.api_port).close()
        listen("PROMPTQ_SCALER_PORT", self.scaler.scaler_host, self.scaler.scaler_port).close()


class Died(PromptqError):
    """A program that should run has ended."""

    type = "died"


class Local:
    """The server, the API and the scaler, as children of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = KillingStop(self.kill)
        self.server: EmbeddedServer | None = None
        self.redis_url = settings.api.redis_url
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def up(self) -> None:
        """Start everything, say when it is ready, and stay until a stop is requested.

        Raises:
            PromptqError: something cannot start, or has died.
        """
        self._start_server()
        say(f"starting the API on {self.settings.api_url} and the scaler ...")
        for name in ("api", "scaler"):
            self._start(name)
        if self._await_ready():
            say(_banner(self.settings, self.redis_url))
            if self.settings.worker.engine == "echo":
                say("PROMPTQ_ENGINE=echo: every answer is the prompt's own words; no model is loaded.")
        while not self.stop.wait(POLL_SECONDS):
            self._check_alive()

    def down(self) -> None:
        """The API first, then the scaler with its workers, the server last."""
        if self.children:
            self._drain()
        if self.server:
            self.server.stop()
        say("stopped.")

    def kill(self) -> None:
        """End everything at once. Runs in a signal handler, so it waits for nobody."""
        for name, child in self.children.items():
            with contextlib.suppress(ProcessLookupError):
                # The scaler kills its workers on SIGQUIT: they are in groups of their own.
                os.killpg(child.pid, signal.SIGQUIT if name == "scaler" else signal.SIGKILL)
        if self.server and self.server.process:
            self.server.process.terminate()

    def _start_server(self) -> None:
        if is_set("redis_url"):
            say(f"using the server at {mask_url(self.redis_url)}")
            JobStore(connect(self.redis_url), self.settings.api).ping()
            return
        folder = self.settings.api.data_dir / "valkey"
        say(f"starting the queue's server in {folder} ...")
        _end_leftover(folder)
        options = ("--pidfile", str(folder.resolve() / "pid"), "--appendfsync", self.settings.api.durability)
        self.server = EmbeddedServer(folder, _port(folder), options)
        self.server.start()
        self.redis_url = self.server.url

    def _start(self, name: str) -> None:
        # The programs are found wherever this file was started from.
        path = [str(Path(__file__).parent), child_environment().get("PYTHONPATH", "")]
        values = {"PROMPTQ_REDIS_URL": self.redis_url, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        environment = child_environment(("PROMETHEUS_MULTIPROC_DIR",), **values)
        self.children[name] = subprocess.Popen(
            bound_to_parent([sys.executable, "-m", name], signal.SIGTERM),
            env=environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )

    def _await_ready(self) -> bool:
        """Tell how it goes until a worker stands ready. False: a stop was requested."""
        observer = Observer(connect(self.redis_url), self.settings.api)
        started = time.monotonic()
        told_at, told = started, ""
        while not self.stop.wait(POLL_SECONDS):
            self._check_alive()
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
        fleet = observer.fleet()
        if fleet is None:
            return "waiting for the scaler"
        if observer.workers() or not fleet.min_workers:
            return ""
        if fleet.trouble:
            return f"no worker yet: {fleet.trouble}"
        return f"{', '.join(fleet.starting) or 'the first worker'} is loading {self.settings.worker.model_id}"

    def _check_alive(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                raise Died(f"{name} has ended unexpectedly with code {child.returncode}")
        if self.server and self.server.process and self.server.process.poll() is not None:
            raise Died(f"the queue's server has ended unexpectedly; see {self.server.folder / 'server.log'}")

    def _drain(self) -> None:
        say("stopping: the API takes no more jobs ...")
        self._end("api", API_END_SECONDS)
        drain = self.settings.scaler.drain_seconds
        say(f"draining the workers, at most {drain:g} s (a second Ctrl-C kills them) ...")
        was_dead = self.children["scaler"].poll() is not None
        self._end("scaler", drain + SCALER_MARGIN_SECONDS)
        if was_dead:
            self._outlive_orphans()

    def _end(self, name: str, seconds: float) -> None:
        child = self.children[name]
        child.terminate()
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"{name} did not end within {seconds:g} s and is killed.")
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _outlive_orphans(self) -> None:
        """The scaler died: its workers got SIGTERM from the kernel and drain; they need the server until they end."""
        observer = Observer(connect(self.redis_url), self.settings.api)
        deadline = time.monotonic() + self.settings.scaler.drain_seconds + SCALER_MARGIN_SECONDS
        with contextlib.suppress(RedisUnavailable):
            while time.monotonic() < deadline and any(w.host == socket.gethostname() for w in observer.workers()):
                time.sleep(POLL_SECONDS)


def main() -> int:
    """Run until a stop is requested. The exit code is 0 after an orderly stop."""
    try:
        settings = Settings()
        with _lock(settings.api.data_dir):
            settings.check()
            return _run(Local(settings))
    except SettingsError as error:
        return _fail(error, ExitCode.SETTINGS)


def say(text: str) -> None:
    """One message to the person at the terminal, who may have closed it."""
    with contextlib.suppress(OSError):
        print(f"promptq: {text}", flush=True)


def _run(local: Local) -> int:
    local.stop.install()
    try:
        local.up()
        return ExitCode.OK
    except RedisUnavailable as error:
        return _fail(error, ExitCode.REDIS_UNAVAILABLE)
    except (ServerError, Died) as error:
        return _fail(error, ExitCode.CRASHED)
    finally:
        local.down()


def _fail(error: PromptqError, code: ExitCode) -> int:
    print(f"promptq: {error.message}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: two servers on one append-only file would destroy it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "lock").open("a+")
    except OSError as error:
        raise SettingsError(f"PROMPTQ_DATA_DIR: cannot write to {data_dir}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"PROMPTQ_DATA_DIR: {data_dir} is in use by another `make up`") from None
        yield


def _check_model(settings: WorkerSettings) -> None:
    is_path = settings.model.startswith(("/", "./", "../", "~")) or settings.model.endswith("/")
    if settings.engine != "echo" and is_path and not Path(settings.model).expanduser().is_dir():
        raise SettingsError(f"PROMPTQ_MODEL: no such folder: {settings.model}")


def _port(folder: Path) -> int:
    """The port of the last time if it is free, so that `rq info` and notebooks find the queue again."""
    record = folder / "port"
    with contextlib.suppress(OSError, ValueError, SettingsError):
        port = int(record.read_text())
        listen("", "127.0.0.1", port).close()
        return port
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    record.write_text(str(port))
    return port


def _end_leftover(folder: Path) -> None:
    """End the server that a killed `make up` left behind; nobody else may have the folder, for we hold its lock."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text())
        there = Path(f"/proc/{pid}/cwd")
        if there.readlink() != folder.resolve():
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + SERVER_END_SECONDS
        while there.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def _answers(api_url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # an http_proxy is not for loopback
    with contextlib.suppress(OSError, HTTPException), direct.open(f"{api_url}/livez", timeout=1):
        return True
    return False


def _banner(settings: Settings, redis_url: str) -> str:
    call = "-H 'Prefer: wait=60' -H 'content-type: application/json'"
    scaler = f"http://{settings.scaler.scaler_host}:{settings.scaler.scaler_port}"
    return f"""ready.

  API      {settings.api_url}         reference: {settings.api_url}/docs
  metrics  {settings.api_url}/metrics and {scaler}/metrics
  queue    {mask_url(redis_url)}

  curl -s {settings.api_url}/v1/jobs {call} -d '{QUESTION}'

Ctrl-C stops: running jobs are finished, waiting ones are kept.
"""


if __name__ == "__main__":
    sys.exit(main())
