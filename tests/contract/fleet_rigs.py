"""Fleets under test, and how their workers are met with an accident. A new fleet joins by a factory in FACTORIES."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from promptq.contract.environment import child_environment
from scaler.fleets.base import Fleet
from scaler.fleets.local import LocalFleet, LocalFleetSettings
from tests.memory_fleet import MemoryFleet
from tests.processes import wait_until

MOST = 3
READY = """import os, pathlib, signal, sys, time
pathlib.Path({folder!r}, os.environ['PROMPTQ_WORKER_NAME']).write_text(str(os.getpid()))
"""
STAND_INS = {
    "serves": "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + READY + "time.sleep(99)",
    "stubborn": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(99)",
    "crashes": "import sys; sys.exit('the disk is on fire')",
}


class Rig(Protocol):
    """A fleet of at most MOST workers under test, and how its workers are met with an accident."""

    @property
    def fleet(self) -> Fleet:
        """What is tested."""

    def settle(self) -> None:
        """Wait until every worker that was started would hear that it is retired."""

    def strike(self, name: str) -> None:
        """The worker dies, by nobody's order."""

    def heal(self) -> None:
        """Workers that are started from now on do not crash."""


def stand_in(kind: str, folder: Path) -> tuple[str, ...]:
    """The command of such a worker; it writes its process id into the folder."""
    script, serving = (STAND_INS[name].format(folder=str(folder)) for name in (kind, "serves"))
    guarded = f"import pathlib\nif not pathlib.Path({str(folder / 'healed')!r}).exists():\n    {script}\n{serving}"
    return sys.executable, "-c", guarded if kind == "crashes" else script


class LocalRig:
    """Real processes on this machine that stand in for workers."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._folder = folder
        self.fleet = self._fleet(stand_in(kind, folder))

    def _fleet(self, command: tuple[str, ...]) -> Fleet:
        return LocalFleet(LocalFleetSettings(MOST, child_environment(), command=command))

    def settle(self) -> None:
        for worker in self.fleet.roster():
            self._pid(worker.name)

    def strike(self, name: str) -> None:
        os.kill(self._pid(name), signal.SIGKILL)

    def _pid(self, name: str) -> int:
        def written() -> int:
            self.fleet.poll(0.0)
            path = self._folder / name
            return int(path.read_text() or 0) if path.exists() else 0

        return wait_until(written, 240, f"{name} to be ready")

    def heal(self) -> None:
        (self._folder / "healed").touch()


class MemoryRig:
    """The fleet that the loop's unit tests use."""

    def __init__(self, kind: str, _folder: Path) -> None:
        self.fleet = MemoryFleet(MOST, crashes=kind == "crashes", drains=kind == "serves")

    def settle(self) -> None:
        """Nothing to wait for."""

    def strike(self, name: str) -> None:
        self.fleet.die(name)

    def heal(self) -> None:
        self.fleet.crashes = False


class RayRig(LocalRig):
    """Real actors on a Ray cluster of this machine, whose children stand in for workers."""

    def _fleet(self, command: tuple[str, ...]) -> Fleet:
        from tests.extras.ray_clusters import stand_in_fleet

        return stand_in_fleet(command, MOST)


def kubernetes_rig(kind: str, folder: Path) -> Rig:
    """Pods on a fake API server."""
    from tests.kubernetes_rig import KubernetesRig

    return KubernetesRig(kind, folder)


FACTORIES: dict[str, Callable[[str, Path], Rig]] = {"local": LocalRig, "memory": MemoryRig}
if find_spec("ray"):
    FACTORIES["ray"] = RayRig
if find_spec("kubernetes"):
    FACTORIES["kubernetes"] = kubernetes_rig
