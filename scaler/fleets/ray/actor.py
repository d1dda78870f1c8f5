"""On a node: an actor whose child is one worker process.

A child, so that a worker has its own main thread, signals, exit code and interpreter, as on a machine of its own, and
so that the actor lives to tell how it ended. The kernel tells the child when the actor ends (SIGHUP: it drains).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from pathlib import Path

import promptq
from promptq.contract.environment import child_environment
from promptq.runtime import programs
from scaler.fleets.base import Exit
from scaler.fleets.child import Child
from scaler.fleets.local import WORKER_COMMAND
from scaler.fleets.ray.order import Order

POLL_SECONDS = 0.1


class WorkerActor:
    """Starts the worker with itself. Its methods wait in an event loop, so that any number of calls wait together."""

    def __init__(self, order: Order, host: str) -> None:
        if order.version != promptq.__version__:
            raise RuntimeError(f"{host} has promptq {promptq.__version__}, and the scaler {order.version}")
        self._host = host
        self._child = Child(
            order.name, order.command or WORKER_COMMAND, worker_environment(order, host), time.monotonic()
        )

    async def place(self) -> str:
        """The address of the node that it is on."""
        return self._host

    async def ended(self) -> Exit:
        """How the worker ended, once it has."""
        while (end := self._child.ended()) is None:
            await asyncio.sleep(POLL_SECONDS)
        return end

    async def retire(self) -> None:
        """SIGTERM, once: the worker keeps what its rows have generated, puts them back, and ends."""
        self._child.retire(0.0)

    async def kill(self, sentence: str) -> None:
        """SIGKILL; `sentence` is the reason that its end has."""
        self._child.kill(sentence)


def worker_environment(order: Order, host: str) -> dict[str, str]:
    """What the worker runs with: the node's own environment, and over it what the order says."""
    own = child_environment()
    values = {**order.defaults, "PROMPTQ_WORKER_METRICS_HOST": host, **_settings(own), **order.environment}
    values |= {"PROMPTQ_WORKER_NAME": order.name}
    if order.models:
        values["PROMPTQ_MODELS_FILE"] = str(_models_file(order.models))
    return programs.environment((), **values)


def _settings(environment: dict[str, str]) -> dict[str, str]:
    """What the node itself says, such as a folder of its own."""
    return {name: value for name, value in environment.items() if name.startswith("PROMPTQ_")}


def _models_file(text: str) -> Path:
    """Written anew each time, for what lies there may be another user's; the same text has one name, so that workers
    that come and go leave one file behind."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"promptq-models-{os.getuid()}-{digest}.toml"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.replace(file.name, path)
    return path
