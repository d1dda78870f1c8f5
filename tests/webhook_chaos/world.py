"""Redis, two dispatchers and the receivers: started, kept alive, and killed at random."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from promptq.contract.errors import RedisUnavailable
from promptq.contract.webhook_records import secret_id
from promptq.contract.webhooks import derive_secret
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import JobStore, connect
from promptq.runtime.secret_file import read_or_make
from tests.fakes import SETTINGS
from tests.processes import start
from tests.webhook_chaos.hasty_dispatcher import INSIDE
from tests.webhook_chaos.receivers import Log, Receiver, Trap

DISPATCHERS: Final = 2
LEASE_SECONDS: Final = 1
PATIENCE_SECONDS: Final = 1800.0
Answer = TypeVar("Answer")


def patiently(call: Callable[[], Answer]) -> Answer:
    """What a call gives, however often Redis is away meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            return call()
        except RedisUnavailable:
            time.sleep(0.1)
    raise AssertionError("Redis does not come back")


class World:
    """What runs.

    Args:
        folder: of Redis and of the secret.
        seed: of what receivers answer.
        addresses: how many receivers there are.
    """

    def __init__(self, folder: Path, seed: int, addresses: int) -> None:
        self.server = EmbeddedServer(folder / "redis").start()
        self.data_dir = folder / "data"
        self.secret = read_or_make("SECRET", self.data_dir / "webhook.secret")
        self.store = JobStore(connect(self.server.url), SETTINGS)
        self.log = Log(seed)
        self.trap = Trap(INSIDE)
        self.receivers = [Receiver(self.log, f"http://{INSIDE}:{self.trap.port}/") for _ in range(addresses)]
        self.dispatchers = [self._dispatcher() for _ in range(DISPATCHERS)]

    def sign_for(self, destination: str, owner: str) -> None:
        """Have a destination expect the events of an owner's jobs."""
        self.log.secrets[destination] = derive_secret(self.secret, secret_id(owner), 1)

    def down(self) -> None:
        """End all."""
        for process in self.dispatchers:
            process.kill()
            process.wait()
        for receiver in self.receivers:
            receiver.close()
        self.trap.close()
        self.store.client.close()
        self.server.stop(kill=True)

    def kill_dispatcher(self, number: int) -> None:
        """SIGKILL one, and start another in its place."""
        self.dispatchers[number].kill()
        self.dispatchers[number].wait()
        self.dispatchers[number] = self._dispatcher()

    def restart_redis(self, away: float) -> None:
        """SIGKILL Redis, and start it with what it has written."""
        self.server.stop(kill=True)
        time.sleep(away)
        self.server.start()

    def _dispatcher(self) -> subprocess.Popen[bytes]:
        return start(
            "tests.webhook_chaos.hasty_dispatcher", self.server, data_dir=self.data_dir, dispatcher_port=0,
            lease_seconds=LEASE_SECONDS, webhook_timeout_seconds=1, webhook_max_waiting=10**6, log_level="ERROR",
        )  # fmt: skip


class Trouble(threading.Thread):
    """Kills dispatchers and Redis, in turn at first and then at random, until it is told to stop.

    Args:
        every: seconds between two faults, about; the next one comes only once something came since the last.
        most: faults; then it ends.

    Attributes:
        done: how often what was killed.
    """

    def __init__(self, world: World, seed: int, every: float, most: int) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.closing = threading.Event()
        self._world = world
        self._random = random.Random(seed)
        self._every = every
        self._most = most

    def run(self) -> None:
        """A fault every so often."""
        first, came = ["redis", "dispatcher"], 0
        while self.done.total() < self._most and not self.closing.wait(self._random.uniform(0.5, 1.5) * self._every):
            if self._world.log.moods.total() == came:
                continue
            came = self._world.log.moods.total()
            whom = first.pop() if first else self._random.choice(("dispatcher", "dispatcher", "redis"))
            if whom == "redis":
                self._world.restart_redis(self._random.uniform(0, 1))
            else:
                # Of the two the one that sends is not known: killed together, it is among them.
                for number in range(DISPATCHERS) if self._random.random() < 0.5 else [self._random.randrange(2)]:
                    self._world.kill_dispatcher(number)
            self.done[whom] += 1
