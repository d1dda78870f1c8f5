"""Asks workers to finish, wherever they run: through the hash that they write at each heartbeat."""

from __future__ import annotations

from promptq.contract.errors import WorkerNotFound
from promptq.queue.store import JobStore


def drain_worker(store: JobStore, name: str) -> None:
    """Ask a worker to claim nothing more, to put back what it runs, and to end. Whoever started it may start another.

    Raises:
        WorkerNotFound: no such worker is registered.
        RedisUnavailable: it is not known whether it was asked.
    """
    if not store.scripts.run("drain", [name]):
        raise WorkerNotFound(name)
