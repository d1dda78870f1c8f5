"""Hosts with addresses of their own on this machine: network namespaces that can be cut off. Root only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptq.contract.environment import PREFIX, child_environment
from tests.processes import ROOT

NETWORK = "10.231.77"
HERE = 254
"""The last part of this process's own address on that network."""


def cannot() -> str:
    """Why there can be none here; empty: there can."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "network namespaces need root and iproute2"
    probe = f"pqprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """Hosts by name, on a switch that is a namespace too; this process has an address there as well."""

    def __init__(self) -> None:
        self._tag = f"pq{os.getpid() % 100_000}"
        self._addresses: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self._space("switch"))
        self._on_switch("link", "add", "bridge", "type", "bridge")
        self._on_switch("link", "set", "bridge", "up")
        self._plug("here", HERE)

    def add(self, name: str) -> str:
        """A host; gives its address."""
        _ip("netns", "add", self._space(name))
        self._addresses[name] = self._plug(name, len(self._addresses) + 1)
        return self._addresses[name]

    def cut(self, name: str) -> None:
        """What is sent to and from it is lost from now on, and nobody is told."""
        self._on_switch("link", "set", name, "down")

    def join(self, name: str) -> None:
        """It is on the network again."""
        self._on_switch("link", "set", name, "up")

    def run(self, name: str, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[bytes]:
        """A process on a host; it ends with the network."""
        there = ["ip", "netns", "exec", self._space(name), *map(str, command)]
        process = subprocess.Popen(there, env=child_environment(**environment), cwd=ROOT)
        self._processes.append(process)
        return process

    def program(self, name: str, *module: str, clock: dict[str, str] | None = None, **settings: Any) -> Any:
        """`python -m module` on a host, with settings by their field names."""
        values = {PREFIX + field.upper(): str(value) for field, value in settings.items()}
        return self.run(name, [sys.executable, "-m", *module], **values, **(clock or {}))

    def close(self) -> None:
        """End every process and every host."""
        for process in self._processes:
            process.kill()
            process.wait()
        # The cable's end here goes with the switch's namespace, but only later: the next network has the same names.
        _ip("link", "del", f"{self._tag}{HERE}")
        for name in (*self._addresses, "switch"):
            pids = subprocess.run(["ip", "netns", "pids", self._space(name)], capture_output=True, text=True).stdout
            for pid in map(int, pids.split()):
                os.kill(pid, 9)
            subprocess.run(["ip", "netns", "del", self._space(name)], check=False)

    def _plug(self, name: str, number: int) -> str:
        """A cable from a host to the switch."""
        address, end = f"{NETWORK}.{number}", f"{self._tag}{number}"
        self._on_switch("link", "add", name, "type", "veth", "peer", "name", end)
        self._on_switch("link", "set", name, "master", "bridge", "up")
        if name == "here":
            self._on_switch("link", "set", end, "netns", str(os.getpid()))
            inside: Sequence[str] = ()
        else:
            self._on_switch("link", "set", end, "netns", self._space(name))
            inside = ("-n", self._space(name))
            _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{address}/24", "dev", end)
        _ip(*inside, "link", "set", end, "up")
        return address

    def _on_switch(self, *arguments: str) -> None:
        _ip("-n", self._space("switch"), *arguments)

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"
