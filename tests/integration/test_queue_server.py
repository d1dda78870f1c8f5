"""What a killed `promptq up` left behind is ended before another server has its file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promptq.up import queue_server
from promptq.up.queue_server import make_server
from tests.processes import wait_until

STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("there").touch()
time.sleep(99)
"""


def test_a_server_that_does_not_end_when_it_is_told_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_server, "LEFTOVER_END_SECONDS", 0.3)
    leftover = subprocess.Popen([sys.executable, "-c", STUBBORN], cwd=tmp_path)
    try:
        wait_until((tmp_path / "there").exists)
        (tmp_path / "pid").write_text(str(leftover.pid))
        make_server(tmp_path, "everysec")
        assert leftover.wait(10) == -signal.SIGKILL
    finally:
        leftover.kill()
        leftover.wait()
