"""Prometheus and promtool for tests: from PATH, else Debian's package unpacked into the data folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.processes import ROOT

FOLDER = ROOT / ".promptq" / "tools"
HELP = "The tests of ops/ need Prometheus 2.42 or newer: `apt-get install prometheus`, or have it and promtool on PATH."


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`.

    Raises:
        AssertionError: it is neither here nor to be had; says what to do.
    """
    unpacked = FOLDER / "prometheus" / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else "")
    if not found:
        _unpack(FOLDER / "prometheus")
        found = str(unpacked)
    assert Path(found).exists(), HELP
    return found


def _unpack(target: Path) -> None:
    """Fetch the package without installing it: needs no root, starts no service, leaves the system as it is.

    Two test processes may do so at once, so what lies at `target` is always whole: it gets its name at the end.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        packages, tree = Path(folder), Path(folder) / "tree"
        if not _download(packages) and os.geteuid() == 0:
            _call(["apt-get", "update", "-qq"], packages)
            _download(packages)
        archives = sorted(packages.glob("prometheus_*.deb"))
        assert archives, HELP
        assert _call(["dpkg-deb", "-x", str(archives[-1]), str(tree)], packages), HELP
        with contextlib.suppress(OSError):  # the other process was first
            tree.rename(target)


def _download(folder: Path) -> bool:
    return _call(["apt-get", "download", "-qq", "prometheus"], folder)


def _call(command: list[str], folder: Path) -> bool:
    try:
        return subprocess.run(command, cwd=folder, timeout=240).returncode == 0
    except FileNotFoundError:
        raise AssertionError(HELP) from None
