"""`python -m api`: check what can be checked, then become gunicorn."""

from __future__ import annotations

import logging
import os
import resource
import sys
from pathlib import Path

from api.api_keys import read_keys
from promptq.contract.errors import SettingsError
from promptq.contract.exit_codes import ExitCode
from promptq.contract.settings import ApiSettings
from promptq.queue.connection import connect
from promptq.queue.server_check import check_at_start
from promptq.runtime import logs
from promptq.runtime.ports import listen
from promptq.runtime.programs import command, environment

log = logging.getLogger("api")

SPARE_FILES = 256


def main() -> int:
    """Start the API. Returns only when it cannot be started."""
    try:
        settings = ApiSettings.load()
        _check_folder(settings)
        connect(settings.redis_url).close()
        if settings.api_keys_file:
            read_keys(settings.api_keys_file)
        logs.configure("api", settings)
        if trouble := _port_trouble(settings):
            log.error("%s", trouble)
            return ExitCode.CRASHED
        logs.log_settings(log, settings)
        check_at_start(connect(settings.redis_url, settings.redis_timeout_seconds), settings.keys)
    except SettingsError as error:
        print(error.message, file=sys.stderr)
        return ExitCode.SETTINGS
    _allow_files(settings.api_connections)
    _become_gunicorn()
    return ExitCode.CRASHED


def _check_folder(settings: ApiSettings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"PROMPTQ_DATA_DIR: cannot make {settings.data_dir}: {error.strerror}") from None
    if not os.access(settings.data_dir, os.W_OK):
        raise SettingsError(f"PROMPTQ_DATA_DIR: {settings.data_dir} is not writable")


def _port_trouble(settings: ApiSettings) -> str:
    """Why the port cannot be listened on, or an empty string. Gunicorn would try for a while, and say it at length."""
    try:
        listen("PROMPTQ_API_PORT", settings.api_host, settings.api_port).close()
    except SettingsError as error:
        return error.message
    return ""


def _allow_files(connections: int) -> None:
    """Each open request is a file, and so is each connection to Redis; many systems begin with a limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _become_gunicorn() -> None:
    """The same process, so that signals reach gunicorn, with nothing imported before gevent has patched it."""
    config = Path(__file__).with_name("gunicorn.conf.py")
    sys.stderr.flush()
    os.execve(sys.executable, command("api.gunicorn_main", "--config", str(config)), environment())


if __name__ == "__main__":
    sys.exit(main())
