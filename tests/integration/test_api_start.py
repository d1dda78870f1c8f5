"""How `python -m api` starts, or says in one line why it cannot."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from promptq.contract.environment import child_environment
from promptq.contract.exit_codes import ExitCode
from tests.processes import free_port, wait_until

COMMAND = [sys.executable, "-m", "api"]


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = _run(PROMPTQ_API_PORT=str(taken.getsockname()[1]), PROMPTQ_DATA_DIR=str(tmp_path))
    assert ended.returncode == ExitCode.CRASHED
    assert ended.stderr.count("\n") == 1
    assert "Address already in use" in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROMPTQ_API_PROT", "8000"), ("PROMPTQ_API_PROCESSES", "none"), ("PROMPTQ_API_PORT", "99999"),
        ("PROMPTQ_DATA_DIR", "/proc/nowhere"), ("PROMPTQ_REDIS_URL", "redis://:my/pw@host"),
        ("PROMPTQ_REDIS_URL", "redis://h/0?timeout=3"),
    ],
)  # fmt: skip
def test_an_impossible_setting_is_one_clear_line(name: str, value: str) -> None:
    ended = _run(**{name: value})
    assert ended.returncode == ExitCode.SETTINGS
    assert ended.stderr.count("\n") == 1
    assert name in ended.stderr


def test_the_settings_are_told_with_the_password_masked(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    values = {"PROMPTQ_API_PORT": str(port), "PROMPTQ_REDIS_URL": url, "PROMPTQ_DATA_DIR": str(tmp_path)}
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(COMMAND, env=child_environment(**values), stderr=log)
        wait_until(lambda: "Booting worker" in log_file.read_text(), 60)
        process.terminate()
        assert process.wait(20) == 0
    told = log_file.read_text()
    assert "redis://***@127.0.0.1" in told
    assert "hunter2" not in told


def _run(**values: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment(**values)
    return subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=60, check=False)
