"""A primary, its replica, and three Sentinels that fail over: real processes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from promptq.queue.embedded import EmbeddedServer, find_binary
from promptq.queue.store import connect
from tests.processes import free_port, wait_until

SERVICE = "queue"
DOWN_MS = 1500
"""A primary that is silent for so long is down."""
PATIENCE = 120


class Sentinels:
    """What `redis+sentinel://` is for.

    Args:
        binary: of the Sentinels; the servers are the suite's own.
    """

    def __init__(self, folder: Path, count: int = 3, binary: Path | None = None) -> None:
        first = EmbeddedServer(folder / "first").start()
        follow = ("--replicaof", f"127.0.0.1 {first.port}", "--repl-diskless-sync-delay", "0")
        self.servers = [first, EmbeddedServer(folder / "second", options=follow).start()]
        self.ports = [free_port() for _ in range(count)]
        self._processes = [self._start(folder, port, binary or find_binary()) for port in self.ports]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/0?service={SERVICE}"
        wait_until(self._is_whole, PATIENCE, "the Sentinels to know each other and the replica")

    @property
    def primary(self) -> EmbeddedServer:
        """The server that the Sentinels name."""
        port = int(self._ask("GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def other(self) -> EmbeddedServer:
        return next(server for server in self.servers if server is not self.primary)

    def settle(self) -> None:
        """What has been written until now is on both."""
        with connect(self.primary.url) as client:
            assert client.wait(1, 60_000) == 1

    def hand_over(self, *how: str) -> None:
        """As before maintenance: the replica becomes the primary, and the other way round.

        Args:
            how: with COORDINATED the primary takes no more writes until the replica has all; without, it takes them
                until it is told that it is one no more, and they are lost.
        """
        before = self.primary
        wait_until(lambda: self._hands_over(*how), PATIENCE, "a Sentinel that hands over")
        wait_until(lambda: self.primary is not before, PATIENCE, "the new primary")

    def crash(self) -> None:
        """The primary dies. Nobody is told."""
        self.primary.stop(kill=True)

    def wait_for_link(self) -> None:
        """Until the one that is no primary follows the one that is, by the word of the Sentinels too."""
        with connect(self.other.url) as client:
            wait_until(lambda: client.info("replication").get("master_link_status") == "up", PATIENCE, "the link")
        wait_until(self._is_whole, PATIENCE, "the Sentinels to agree")

    def stop(self) -> None:
        """Everything, at once."""
        for process in self._processes:
            process.kill()
            process.wait()
        for server in self.servers:
            server.stop(kill=True)

    def _start(self, folder: Path, port: int, binary: Path) -> subprocess.Popen[bytes]:
        own = folder / f"sentinel-{port}"
        own.mkdir()
        lines = [
            f"port {port}", "bind 127.0.0.1", f"dir {own}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} {2 if len(self.ports) > 1 else 1}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_MS}", f"sentinel failover-timeout {SERVICE} 2000",
        ]  # fmt: skip
        (own / "sentinel.conf").write_text("\n".join([*lines, ""]))
        with (own / "log").open("wb") as log:
            return subprocess.Popen([binary, own / "sentinel.conf", "--sentinel"], stdout=log, stderr=log)

    def _is_whole(self) -> bool:
        try:
            states = [self._state(port) for port in self.ports]
        except redis.RedisError:
            return False
        others = len(self.ports) - 1
        known = [(state["num-slaves"], state["num-other-sentinels"], state["is_sdown"]) for state in states]
        return known == [(1, others, False)] * len(known)

    def _state(self, port: int) -> Any:
        with redis.Redis(port=port) as client:
            return client.sentinel_master(SERVICE)

    def _hands_over(self, *how: str) -> bool:
        try:
            return bool(self._ask("FAILOVER", SERVICE, *how))
        except redis.ResponseError:  # it thinks that there is no good replica, or that one is under way
            return False

    def _ask(self, *words: str) -> Sequence[Any]:
        with redis.Redis(port=self.ports[0]) as client:
            return client.execute_command("SENTINEL", *words)
