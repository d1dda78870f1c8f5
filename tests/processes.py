"""Real processes for tests: started, waited for, and really ended."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from promptq.contract.environment import PREFIX, child_environment
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.clocks import Clock
from tests.fakes import SETTINGS

ROOT = Path(__file__).parent.parent
PORTS = range(10_000, 20_000)
"""Of tests: below those of the product's own `free_port`, and of outgoing connections."""
KEPT_PORTS = 64
"""So many of its latest ports a test process keeps from the others: more than a test has."""
_kept: deque[socket.socket] = deque()


def free_port() -> int:
    """A TCP port on loopback that nothing listens on, and that no other test process is given before it is used.

    A UDP socket of the same number says so to the others; nothing here listens on UDP.
    """
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            _keep(port)
            return port


def _keep(port: int) -> None:
    kept = socket.socket(type=socket.SOCK_DGRAM)
    try:
        kept.bind(("127.0.0.1", port))
    except OSError:
        kept.close()
        raise
    _kept.append(kept)
    if len(_kept) > KEPT_PORTS:
        _kept.popleft().close()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """The condition's first true value; fails loudly when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what or condition}")


def wait_for_value(read: Callable[[], Any], expected: Any, seconds: float = 30.0, what: str = "the value") -> None:
    """Wait until `read` gives `expected`: what another process counts, it counts in its next round.

    Raises:
        AssertionError: it never did; says what it gave last.
    """
    last = None

    def arrived() -> bool:
        nonlocal last
        last = read()
        return bool(last == expected)

    try:
        wait_until(arrived, seconds)
    except AssertionError:
        raise AssertionError(f"waited {seconds} s for {what} to be {expected!r}: it is {last!r}") from None


def start(
    module: str,
    server: EmbeddedServer,
    clock: Clock | None = None,
    python: Path | str = sys.executable,
    **settings: Any,
) -> subprocess.Popen[bytes]:
    """`python -m module` against the server, with settings given by their field names.

    Args:
        clock: what it, and whatever it starts, takes for the time of day.
        python: of another environment, where it needs what ours has not.
    """
    values = {PREFIX + name.upper(): str(value) for name, value in settings.items()}
    values |= clock.environment if clock else {}
    environment = child_environment(**{"PROMPTQ_REDIS_URL": server.url, "PROMPTQ_ENGINE": "echo", **values})
    return subprocess.Popen([python, "-m", module], env=environment, cwd=ROOT)


@contextmanager
def worker(server: EmbeddedServer, name: str = "w1", **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A registered worker process, killed at the end if it still lives."""
    process = start("gpu_worker", server, worker_name=name, **settings)
    try:
        with connect(server.url) as client:
            keys = SETTINGS.keys
            wait_until(lambda: client.sismember(keys.workers(), keys.worker(name)), 180, f"worker {name}")
        yield process
    finally:
        process.kill()
        process.wait()
