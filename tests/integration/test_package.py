"""The package as pip installs it: built, put into an environment, and run from somewhere else."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from pathlib import Path

import pytest

import promptq
from promptq.contract.environment import child_environment
from promptq.contract.settings import DEFAULT_MODEL_REQUIREMENT
from tests.processes import ROOT, free_port, wait_until


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    # A copy of what git tracks: a build leaves its own files beside the sources.
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(copy)], check=True, timeout=120)
    return next(folder.glob("promptq-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the package alone, and what it depends on lent by ours: installing torch takes minutes."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    site = next(folder.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(environment / "bin/promptq"), *arguments]
    clean = child_environment(("PYTHONPATH",))
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheel_has_everything_that_is_tracked(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for top in ("promptq", "api", "gpu_worker", "scaler"):
        tracked = subprocess.run(["git", "ls-files", top], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        there = {name for name in tracked.splitlines() if (ROOT / name).is_file()}
        assert there <= packed, sorted(there - packed)


def test_the_command_says_what_it_is(environment: Path, tmp_path: Path) -> None:
    assert run(environment, tmp_path, "--version").stdout.strip() == f"promptq {promptq.__version__}"
    text = run(environment, tmp_path, "--help").stdout
    assert all(f"    {name} " in text for name in ("up", "api", "worker", "scaler", "dispatcher", "batch", "key"))
    wrong = run(environment, tmp_path, "serve")
    assert (wrong.returncode, "invalid choice: 'serve'" in wrong.stderr) == (2, True)
    assert len(run(environment, tmp_path, "key", "ann").stdout.splitlines()) == 2


@pytest.mark.parametrize("program", ["api", "worker", "scaler", "dispatcher"])
def test_a_wrong_setting_is_the_programs_own_line_and_code(environment: Path, tmp_path: Path, program: str) -> None:
    (tmp_path / ".env").write_text("PROMPTQ_LEASE_SECONDS=-1\n")
    ended = run(environment, tmp_path, program)
    assert ended.returncode == 2
    assert "PROMPTQ_LEASE_SECONDS" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_up_answers_from_a_folder_with_names_like_ours(environment: Path, tmp_path: Path) -> None:
    """A user's own `api` folder must not be taken for the program."""
    (tmp_path / "api").mkdir()
    (tmp_path / "api/__init__.py").write_text("raise SystemExit('the wrong api')")
    port = free_port()
    values = {"ENGINE": "echo", "API_PORT": port, "SCALER_PORT": free_port(), "DISPATCHER_PORT": 0, "API_PROCESSES": 1}
    settings = child_environment(("PYTHONPATH",), **{f"PROMPTQ_{name}": str(value) for name, value in values.items()})
    up = subprocess.Popen(
        [str(environment / "bin/promptq"), "up"], cwd=tmp_path, env=settings, stdout=subprocess.DEVNULL
    )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/jobs",
            b'{"prompt": "packed and shipped"}',
            {"content-type": "application/json", "prefer": "wait=30"},
        )

        def answer() -> str:
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return str(json.loads(reply.read())["output"]["text"])
            except OSError:
                return ""

        assert wait_until(answer, 60, "an answer") == "packed and shipped"
    finally:
        up.terminate()
        assert up.wait(60) == 0


def test_the_kernels_sources_are_found_where_the_package_is(environment: Path) -> None:
    module = "gpu_worker.engines.continuous.kernels.build"
    code = f"from {module} import HERE; print(*sorted(path.name for path in HERE.glob('*.c')))"
    clean = child_environment(("PYTHONPATH",))
    found = subprocess.run(
        [str(environment / "bin/python"), "-c", code], cwd="/", env=clean, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["attention.c", "product.c", "rows.c"]


def test_the_default_models_package_is_the_pinned_one() -> None:
    assert DEFAULT_MODEL_REQUIREMENT in (ROOT / "requirements/model.txt").read_text().splitlines()
