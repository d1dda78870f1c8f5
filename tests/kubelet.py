"""The node of the fake cluster: it runs each pod's worker as a real process of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import Any

from promptq.contract.environment import child_environment
from tests import pod_statuses
from tests.fake_kubernetes import FakeKubernetes
from tests.processes import ROOT

LOOK_SECONDS = 0.05


class Kubelet:
    """Starts what the API server has for it, and writes what becomes of it."""

    def __init__(self, server: FakeKubernetes) -> None:
        self._server = server
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._words: dict[str, dict[str, Any]] = {}
        self._stopped = threading.Event()
        server.on_sigterm = self._on_sigterm
        self._thread = threading.Thread(target=self._run, name="kubelet")
        self._thread.start()

    def close(self) -> None:
        """End every worker."""
        self._stopped.set()
        self._thread.join()
        for process in self._processes.values():
            process.kill()
            process.wait()

    def evict(self, name: str) -> None:
        """Memory is low on the node."""
        self._words[name] = pod_statuses.EVICTED
        self._processes[name].kill()

    def kill(self, name: str) -> None:
        """Something kills the container."""
        self._words[name] = pod_statuses.KILLED
        self._processes[name].kill()

    def running(self) -> set[str]:
        """Workers whose processes run."""
        return {name for name, process in self._processes.items() if process.poll() is None}

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            for name, pod in self._server.pods.items():
                if name not in self._processes and "deletionTimestamp" not in pod["metadata"]:
                    self._start(name, pod)
            for name, process in list(self._processes.items()):
                if process.poll() is not None and name in self._server.pods:
                    self._tell_end(name, process.returncode)

    def _start(self, name: str, pod: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        given = {entry["name"]: entry.get("value", "127.0.0.1") for entry in container["env"]}
        command = [sys.executable, *container["command"][1:]]
        self._processes[name] = subprocess.Popen(command, env=child_environment(**given), cwd=ROOT)
        self._server.set(name, pod_statuses.RUNNING)

    def _tell_end(self, name: str, code: int) -> None:
        pod = self._server.pods[name]
        if pod["status"]["phase"] in ("Failed", "Succeeded"):
            return
        status = self._words.get(name) or pod_statuses.ended(code if code >= 0 else 128 - code)
        if "deletionTimestamp" in pod["metadata"]:
            self._server.finish(name, status)
        else:
            self._server.set(name, status)

    def _on_sigterm(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGTERM)
