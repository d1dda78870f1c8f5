"""A server to measure on, and what it counts itself: commands, reads from its sockets, processor time, memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect


@dataclass(frozen=True, slots=True)
class Counts:
    """The server's own counters at one moment, or their growth between two.

    Attributes:
        reads: reads from client sockets that brought commands: a round trip each, as long as requests are small.
        commands: commands carried out, those that scripts call included.
    """

    seconds: float
    reads: float
    commands: float
    cpu_seconds: float

    def since(self, earlier: Counts) -> Counts:
        """The growth."""
        return Counts(
            self.seconds - earlier.seconds, self.reads - earlier.reads, self.commands - earlier.commands,
            self.cpu_seconds - earlier.cpu_seconds,
        )  # fmt: skip

    def per(self, jobs: float) -> dict[str, float]:
        """Of each job, in µs where it is time."""
        return {
            "us": 1e6 * self.seconds / jobs, "redis_cpu_us": 1e6 * self.cpu_seconds / jobs,
            "round_trips": self.reads / jobs, "commands": self.commands / jobs,
        }  # fmt: skip


def counts(client: redis.Redis, clock: Callable[[], float]) -> Counts:
    """Read the counters: one command, whose own cost is in the next reading."""
    info: Any = client.info("stats", "cpu", "commandstats")
    calls = {name: stats["calls"] for name, stats in info.items() if name.startswith("cmdstat_")}
    ours = calls.get("cmdstat_info", 0)
    cpu = info["used_cpu_user"] + info["used_cpu_sys"]
    return Counts(clock(), info["total_reads_processed"] - ours, sum(calls.values()) - ours, cpu)


def used_memory(client: redis.Redis) -> int:
    """Bytes in use, without the buffers of clients and of the append-only file."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"] - memory["mem_clients_normal"] - memory["mem_aof_buffer"])


@contextmanager
def serving(*options: str) -> Iterator[redis.Redis]:
    """A client of a new server, its data in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="promptq-bench-") as folder:
        server = EmbeddedServer(Path(folder), options=options).start()
        try:
            with connect(server.url, 60) as client:
                yield client
        finally:
            server.stop(kill=True)


def url_of(client: redis.Redis) -> str:
    """Where that client's server listens."""
    options = client.get_connection_kwargs()
    return f"redis://{options['host']}:{options['port']}/0"
