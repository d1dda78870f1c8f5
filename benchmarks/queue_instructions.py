"""What a job costs Redis in instructions: `python -m benchmarks.queue_instructions`, with valgrind installed.

Processor time differs by a third from hour to hour on a shared machine; two runs of this differ by half a percent. It
counts the server's own instructions, its allocator's too, but not the kernel's. To compare, run it in two checkouts.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.queue import acts
from promptq.queue import embedded
from promptq.queue.store import connect

SIZE, JOBS, WARM_UPS = 32, 640, 2
ROWS = (("result cache", True, ("",)), ("no cache", False, ("",)), ("no cache, two keys", False, ("ann", "bob")))


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"{'a job, at ' + str(SIZE):20}{'submit':>9}{'claim':>9}{'finish':>9}{'all':>9}")
    for name, cache, owners in ROWS:
        with tempfile.TemporaryDirectory(prefix="promptq-bench-") as folder:
            row = _measure(Path(folder), cache, owners)
        print(f"{name:20}" + "".join(f"{value / JOBS:9,.0f}" for value in [*row, sum(row)]))


def _measure(folder: Path, cache: bool, owners: Sequence[str]) -> list[float]:
    """Instructions of all submits, claims and finishes."""
    wrapped = _wrapped(folder, embedded.find_binary())
    with mock.patch.object(embedded, "find_binary", return_value=wrapped):
        server = embedded.EmbeddedServer(folder).start()
    try:
        assert server.process is not None
        pid = server.process.pid
        with connect(server.url, 60) as client:
            for _ in range(WARM_UPS):
                for act in acts(client, SIZE, JOBS, cache, owners).values():
                    act()
            return [_instructions(act, pid, folder) for act in acts(client, SIZE, JOBS, cache, owners).values()]
    finally:
        server.stop(kill=True)


def _wrapped(folder: Path, binary: Path) -> Path:
    """A script that runs the server under callgrind."""
    script = folder / "server"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'counts'}", str(binary)]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    script.chmod(0o755)
    return script


def _instructions(act: Callable[[], Any], pid: int, folder: Path) -> float:
    """How many the server carries out meanwhile: a dump of callgrind's counts ends with their total."""
    _control("--zero", pid)
    act()
    _control("--dump", pid)
    newest = max(folder.glob("counts.*"), key=lambda path: path.stat().st_mtime_ns)
    found = re.search(r"^(?:summary|totals): (\d+)", newest.read_text(), re.MULTILINE)
    assert found, newest
    return float(found[1])


def _control(what: str, pid: int) -> None:
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
